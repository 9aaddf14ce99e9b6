//! Rules for `iptables-restore --noflush` and its IPv6 twin, for kernels or images without nftables.

use std::fmt::{Display, Write};

use super::model::Capture;

/// Our chains, and the built-in ones that lead into them.
pub(super) const CHAINS: [(&str, &str); 2] = [("OUTPUT", "VEER_OUTBOUND"), ("PREROUTING", "VEER_INBOUND")];

impl Capture {
    /// The text for `iptables-restore --noflush` (`ip6tables-restore` with `ipv6`), for a namespace without earlier
    /// rules of ours: a declared chain is emptied by the tool, but jumps into it would be there twice.
    /// [`apply`](super::apply) removes them first.
    pub fn iptables(&self, ipv6: bool) -> String {
        let mut out = String::new();
        let text = &mut out;
        let own_family = |range: &&super::Range| range.is_ipv6() == ipv6;
        line(text, "*nat");
        if self.outbound_port.is_some() {
            line(text, ":VEER_OUTBOUND - [0:0]");
        }
        if self.inbound_port.is_some() {
            line(text, ":VEER_INBOUND - [0:0]");
        }
        if let Some(port) = self.outbound_port {
            let mut rule = |rest: &dyn Display| line(text, format_args!("-A VEER_OUTBOUND {rest}"));
            if let Some(mark) = self.proxy_mark {
                rule(&format_args!("-m mark --mark {mark:#x} -j RETURN"));
            }
            if let Some(uid) = self.proxy_uid {
                rule(&format_args!("-m owner --uid-owner {uid} -j RETURN"));
            }
            rule(&"-m addrtype --dst-type LOCAL -j RETURN");
            for open in self.open_outbound_ports() {
                rule(&format_args!("-p tcp --dport {open} -j RETURN"));
            }
            for range in self.exclude_outbound_ranges.iter().filter(own_family) {
                rule(&format_args!("-d {range} -j RETURN"));
            }
            if self.outbound_ranges.is_empty() {
                rule(&format_args!("-p tcp -j REDIRECT --to-ports {port}"));
            }
            for range in self.outbound_ranges.iter().filter(own_family) {
                rule(&format_args!("-d {range} -p tcp -j REDIRECT --to-ports {port}"));
            }
            line(text, "-A OUTPUT -p tcp -j VEER_OUTBOUND");
        }
        if let Some(port) = self.inbound_port {
            let mut rule = |rest: &dyn Display| line(text, format_args!("-A VEER_INBOUND {rest}"));
            rule(&"-i lo -j RETURN");
            rule(&"-m addrtype ! --dst-type LOCAL -j RETURN");
            for open in self.open_inbound_ports() {
                rule(&format_args!("-p tcp --dport {open} -j RETURN"));
            }
            rule(&format_args!("-p tcp -j REDIRECT --to-ports {port}"));
            line(text, "-A PREROUTING -p tcp -j VEER_INBOUND");
        }
        line(text, "COMMIT");
        out
    }
}

fn line(text: &mut String, what: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{what}");
}

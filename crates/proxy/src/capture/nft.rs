//! Rules for `nft -f -`: one transaction, one table of our own.

use std::fmt::{Display, Write};

use super::model::{Capture, Range};

/// The table that holds all of it.
pub(super) const TABLE: &str = "inet veer_capture";

impl Capture {
    /// The ruleset for `nft -f -`. Applied as one transaction that replaces an earlier one.
    pub fn nft(&self) -> String {
        let mut out = nft_removal();
        let text = &mut out;
        line(text, 0, format_args!("table {TABLE} {{"));
        if let Some(port) = self.outbound_port {
            line(text, 1, "chain outbound {");
            line(text, 2, "type nat hook output priority -100; policy accept;");
            self.begin(text);
            line(text, 2, "# the proxy's own connections, or they would run in a circle");
            if let Some(mark) = self.proxy_mark {
                line(text, 2, format_args!("meta mark {mark:#x} return"));
            }
            if let Some(uid) = self.proxy_uid {
                line(text, 2, format_args!("meta skuid {uid} return"));
            }
            line(text, 2, "# within the workload: loopback and its own addresses");
            line(text, 2, "fib daddr type local return");
            ports(text, &self.open_outbound_ports());
            for (family, ranges) in families(&self.exclude_outbound_ranges) {
                line(text, 2, format_args!("{family} daddr {{ {} }} return", join(&ranges)));
            }
            if self.outbound_ranges.is_empty() {
                line(text, 2, format_args!("meta l4proto tcp redirect to :{port}"));
            }
            for (family, ranges) in families(&self.outbound_ranges) {
                line(
                    text,
                    2,
                    format_args!("{family} daddr {{ {} }} meta l4proto tcp redirect to :{port}", join(&ranges)),
                );
            }
            line(text, 1, "}");
        }
        if let Some(port) = self.inbound_port {
            line(text, 1, "chain inbound {");
            line(text, 2, "type nat hook prerouting priority -100; policy accept;");
            self.begin(text);
            line(text, 2, "iifname \"lo\" return");
            line(text, 2, "# what is only forwarded is not ours");
            line(text, 2, "fib daddr type != local return");
            ports(text, &self.open_inbound_ports());
            line(text, 2, format_args!("meta l4proto tcp redirect to :{port}"));
            line(text, 1, "}");
        }
        line(text, 0, "}");
        out
    }

    fn begin(&self, text: &mut String) {
        line(text, 2, "meta l4proto != tcp return");
        if !self.ipv6 {
            line(text, 2, "meta nfproto != ipv4 return");
        }
    }
}

/// Removes the table, whether it is there or not: adding what exists is no error, deleting what does not would be.
pub(super) fn nft_removal() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

fn ports(text: &mut String, ports: &[u16]) {
    if !ports.is_empty() {
        line(text, 2, format_args!("tcp dport {{ {} }} return", join(ports)));
    }
}

fn families(ranges: &[Range]) -> impl Iterator<Item = (&'static str, Vec<Range>)> {
    let of = |v6: bool| ranges.iter().copied().filter(|r| r.is_ipv6() == v6).collect::<Vec<_>>();
    [("ip", of(false)), ("ip6", of(true))].into_iter().filter(|(_, ranges)| !ranges.is_empty())
}

fn join(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn line(text: &mut String, depth: usize, what: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:width$}{what}", "", width = depth * 2);
}

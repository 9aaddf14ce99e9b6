use super::*;

fn full() -> Capture {
    Capture {
        proxy_uid: Some(1337),
        exclude_outbound_ranges: ["169.254.169.254", "fd00::/8", "10.9.0.0/16"].map(|r| r.parse().unwrap()).into(),
        exclude_outbound_ports: vec![5432, 53, 5432],
        exclude_inbound_ports: vec![22],
        ..Capture::default()
    }
}

#[test]
fn the_rules_of_nftables() {
    let expected = "\
add table inet veer_capture
delete table inet veer_capture
table inet veer_capture {
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta l4proto != tcp return
    # the proxy's own connections, or they would run in a circle
    meta mark 0x539 return
    meta skuid 1337 return
    # within the workload: loopback and its own addresses
    fib daddr type local return
    tcp dport { 53, 5432 } return
    ip daddr { 169.254.169.254/32, 10.9.0.0/16 } return
    ip6 daddr { fd00::/8 } return
    meta l4proto tcp redirect to :15001
  }
  chain inbound {
    type nat hook prerouting priority -100; policy accept;
    meta l4proto != tcp return
    iifname \"lo\" return
    # what is only forwarded is not ours
    fib daddr type != local return
    tcp dport { 22, 15001, 15006, 15008, 15020 } return
    meta l4proto tcp redirect to :15006
  }
}
";
    assert_eq!(full().nft(), expected);
}

#[test]
fn the_rules_of_nftables_for_some_destinations_only() {
    let capture = Capture {
        inbound_port: None,
        ipv6: false,
        outbound_ranges: vec!["10.96.0.0/12".parse().unwrap()],
        ..Capture::default()
    };
    let expected = "\
add table inet veer_capture
delete table inet veer_capture
table inet veer_capture {
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta l4proto != tcp return
    meta nfproto != ipv4 return
    # the proxy's own connections, or they would run in a circle
    meta mark 0x539 return
    # within the workload: loopback and its own addresses
    fib daddr type local return
    ip daddr { 10.96.0.0/12 } meta l4proto tcp redirect to :15001
  }
}
";
    assert_eq!(capture.nft(), expected);
}

#[test]
fn the_rules_of_iptables() {
    let expected = "\
*nat
:VEER_OUTBOUND - [0:0]
:VEER_INBOUND - [0:0]
-A VEER_OUTBOUND -m mark --mark 0x539 -j RETURN
-A VEER_OUTBOUND -m owner --uid-owner 1337 -j RETURN
-A VEER_OUTBOUND -m addrtype --dst-type LOCAL -j RETURN
-A VEER_OUTBOUND -p tcp --dport 53 -j RETURN
-A VEER_OUTBOUND -p tcp --dport 5432 -j RETURN
-A VEER_OUTBOUND -d 169.254.169.254/32 -j RETURN
-A VEER_OUTBOUND -d 10.9.0.0/16 -j RETURN
-A VEER_OUTBOUND -p tcp -j REDIRECT --to-ports 15001
-A OUTPUT -p tcp -j VEER_OUTBOUND
-A VEER_INBOUND -i lo -j RETURN
-A VEER_INBOUND -m addrtype ! --dst-type LOCAL -j RETURN
-A VEER_INBOUND -p tcp --dport 22 -j RETURN
-A VEER_INBOUND -p tcp --dport 15001 -j RETURN
-A VEER_INBOUND -p tcp --dport 15006 -j RETURN
-A VEER_INBOUND -p tcp --dport 15008 -j RETURN
-A VEER_INBOUND -p tcp --dport 15020 -j RETURN
-A VEER_INBOUND -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j VEER_INBOUND
COMMIT
";
    assert_eq!(full().iptables(false), expected);
    let v6 = full().iptables(true);
    assert!(v6.contains("-d fd00::/8 -j RETURN") && !v6.contains("10.9.0.0"), "{v6}");
}

#[test]
fn every_fault_is_found_at_once() {
    let capture = Capture { proxy_mark: None, outbound_port: None, inbound_port: None, ..Capture::default() };
    assert_eq!(capture.faults(), [CaptureFault::Circle, CaptureFault::Nothing]);
    let capture = Capture { proxy_mark: Some(0), proxy_uid: Some(0), inbound_port: Some(0), ..Capture::default() };
    assert_eq!(capture.faults(), [CaptureFault::Root, CaptureFault::NoMark, CaptureFault::Port]);
    assert!(matches!(apply(&capture, Tool::Nft, &Namespace::Current), Err(CaptureError::Faults(f)) if f.len() == 3));
    assert!(Capture::default().faults().is_empty());
}

#[test]
fn ranges_are_read_strictly() {
    for (text, shown) in
        [("10.0.0.0/8", "10.0.0.0/8"), ("1.2.3.4", "1.2.3.4/32"), ("::/0", "::/0"), ("fd00::1", "fd00::1/128")]
    {
        assert_eq!(text.parse::<Range>().map(|r| r.to_string()).as_deref(), Ok(shown));
    }
    for bad in [
        "",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0/8",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "fd00::1/64",
        "::/129",
        "a/8",
        "0.0.0.0/",
    ] {
        assert!(bad.parse::<Range>().is_err(), "{bad}");
    }
}

//! Whatever a file holds, reading it ends, and what it says lies within the file.

use proptest::prelude::*;
use veer_resources::{check_set, parse, parse_bytes, parse_fleet, remove_duplicates};

const GOOD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec:
  selector: {app: cart}
  ports:
  - {name: http, port: 80, targetPort: 8080}
---
apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {name: cart, namespace: shop, labels: &l {app: cart}, annotations: *l}
spec:
  address: 127.1.0.2
  ports: [{port: 8080}]
  run: {command: [\"./cart\"], env: [{name: A, value: \"b\"}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart}]
  rules:
  - matches: [{path: {type: Exact, value: /a}, headers: [{name: x, value: y}]}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: a.example}}]
    backendRefs: [{name: cart, port: 80, weight: 1}]
    timeouts: {request: 10s}
---
apiVersion: veer.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec: {rules: [{from: [{namespaces: [shop]}], to: [{ports: [8080]}]}]}
---
apiVersion: veer.dev/v1alpha1
kind: Fleet
spec: {clusters: [{name: a, trustDomain: a, manifests: a, control: {address: 127.0.0.1}}], peering: []}
";

/// Nothing panics, every place lies within the text, and reading twice says the same.
fn survives(text: &str) {
    let (mut objects, found) = parse("f", text);
    let lines = text.split('\n').count() as u32 + 1;
    for fault in &found {
        assert!(fault.line <= lines, "{fault} beyond the end, line {lines}");
        assert!(fault.reason.len() + fault.mend.len() < 4000, "{fault}");
    }
    remove_duplicates(&mut objects);
    for fault in check_set(&objects) {
        assert!(fault.line <= lines, "{fault}");
    }
    assert_eq!(parse("f", text).1, found);
    parse_fleet("f", text);
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n---\n",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "&a ",
        "*a",
        "!x ",
        "|\n",
        ">\n",
        "<<: ",
        "kind: ",
        "Service",
        "spec",
        "metadata",
        "apiVersion: v1\n",
        "#",
        "\t",
        "\r\n",
        "?",
        "%YAML",
        "...",
        "0x",
        "1e9",
        "~",
        "ä",
        "\u{feff}",
        "\u{0}",
        "ports",
        "99999",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_text(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn text_of_yaml_pieces(text in pieces()) {
        survives(&text);
    }

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse_bytes("f", &bytes);
    }

    #[test]
    fn mutated_manifests(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, pieces()), 1..4)) {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (at, length, piece) in cuts {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.chars());
        }
        survives(&text.iter().collect::<String>());
    }

    #[test]
    fn half_written_files(at in any::<prop::sample::Index>()) {
        survives(&GOOD[..at.index(GOOD.len())]);
    }
}

#[test]
fn the_seed_of_the_mutations_is_right_itself() {
    let (objects, found) = parse("f", GOOD);
    assert_eq!((objects.len(), found.len()), (4, 1), "{found:?}");
}

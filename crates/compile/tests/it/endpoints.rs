//! Which hosts a service has, and who serves behind each.

use crate::support::*;

#[test]
fn a_service_is_served_by_the_workloads_it_selects() {
    let down = workload("shop/cart-3", "cart", 13).replace("serviceAccount: cart", "replicas: 0");
    let ill = workload("shop/cart-2", "cart", 12).replace("serviceAccount: cart", "ready: false");
    let text = documents(&[
        &service("shop/cart"),
        &workload("shop/cart-1", "cart", 11),
        &ill,
        &down,
        &workload("shop/web-1", "web", 14),
    ]);
    let meaning = mean(&text, &[]);
    assert_eq!(serving(&meaning, "cart.shop.svc.cluster.local"), "west: cart-1, cart-2 (not ready)");
    assert_eq!(serving(&meaning, "cart.shop.svc.clusterset.local"), "no such host");
    let endpoint = &meaning.endpoints["cart.shop.svc.cluster.local"].clusters[0].endpoints[0];
    assert_eq!(endpoint.identity.as_ref().unwrap().to_string(), "spiffe://west.example/ns/shop/sa/cart");
    assert_eq!((endpoint.ports[0].service_port, endpoint.ports[0].target_port), (80, 8080));
    assert_eq!(&*endpoint.locality.zone, "eu-1", "a workload that does not say runs where its cluster does");
    assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
}

#[test]
fn target_ports_by_name_lead_where_the_workload_says() {
    let named = service("shop/cart").replace("targetPort: 8080", "targetPort: web");
    let other = workload("shop/cart-2", "cart", 12).replace("name: web", "name: other");
    let meaning = mean(&documents(&[&named, &workload("shop/cart-1", "cart", 11), &other]), &[]);
    assert_eq!(serving(&meaning, "cart.shop.svc.cluster.local"), "west: cart-1");
    assert_eq!(codes(&meaning.faults), ["V0314"]);
    let fault = &meaning.faults[0];
    assert_eq!((fault.line, &*fault.file), (6, "west.yaml"), "{fault}");
}

#[test]
fn members_of_a_slice_are_workloads_or_plaintext() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{name: http, port: 5432}]\nendpoints:\n- addresses: [127.1.0.21]\n- addresses: [127.1.0.22]\n  conditions: {ready: false}";
    let db = service("shop/db").replace("  selector: {app: db}\n", "");
    let stray = slice.replace("name: db-1", "name: no-1").replace("service-name: db", "service-name: none");
    let meaning = mean(&documents(&[&db, slice, &workload("shop/db-0", "db", 21), &stray]), &[]);
    assert_eq!(serving(&meaning, "db.shop.svc.cluster.local"), "west: 127.1.0.22 (not ready) (plaintext), db-0");
    assert_eq!(codes(&meaning.faults), ["V0380"]);
    let inbound = &meaning.inbound[&object("shop/db-0")];
    assert_eq!(inbound.port(5432).unwrap().service.as_deref(), Some("db"));
}

#[test]
fn a_service_that_nobody_serves_is_told_but_one_that_is_scaled_down_is_meant() {
    let down = workload("shop/cart-1", "cart", 11).replace("serviceAccount: cart", "replicas: 0");
    let all = |meaning: &veer_compile::Meaning| meaning.faults.iter().map(|fault| fault.code).collect::<Vec<_>>();
    assert_eq!(all(&mean(&service("shop/cart"), &[])), ["V0315"]);
    assert_eq!(all(&mean(&documents(&[&service("shop/cart"), &down]), &[])), [] as [&str; 0]);
}

#[test]
fn virtual_addresses_are_names_of_services_and_belong_to_the_first() {
    let ip = |name: &str| service(name).replace("spec:\n", "spec:\n  clusterIP: 10.0.0.1\n");
    let meaning = mean(&documents(&[&ip("shop/b"), &ip("shop/a")]), &[]);
    assert_eq!(meaning.services["10.0.0.1"].host.as_str(), "a.shop.svc.cluster.local");
    assert!(meaning.services["b.shop.svc.cluster.local"].addresses.is_empty());
    assert_eq!(codes(&meaning.faults), ["V0313"]);
}

#[test]
fn what_the_mesh_cannot_carry_is_said() {
    let external = "apiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: shop}\nspec: {type: ExternalName, externalName: example.com}";
    // Nothing but a UDPRoute at a Gateway leads to the first.
    let udp = service("shop/dns").replace("port: 80,", "port: 80, protocol: UDP,");
    let sctp = service("shop/sctp").replace("port: 80,", "port: 80, protocol: SCTP,");
    let meaning = mean(&documents(&[external, &udp, &sctp]), &[]);
    assert!(meaning.services.is_empty());
    assert_eq!(codes(&meaning.faults), ["V0311"], "the rest was said when they were read");
}

#[test]
fn the_clusterset_host_stands_for_every_cluster_that_offers() {
    let base = [service("shop/cart"), workload("shop/cart-1", "cart", 11), link("east", 2, ""), link("edge", 3, "")];
    let base: Vec<&str> = base.iter().map(String::as_str).collect();
    let base = documents(&base);
    let peers = [offering("edge", 3, &["shop/cart"]), offering("east", 2, &["shop/cart"])];
    let host = "cart.shop.svc.clusterset.local";
    for (what, manifests, peers, expected) in [
        ("not exported, not offered", base.clone(), &[][..], "no such host"),
        ("not exported: local copies do not count", base.clone(), &peers[..], "east: cart-1; edge: cart-1"),
        (
            "exported: local first",
            documents(&[&base, &export("shop/cart", "*")]),
            &peers[..],
            "west: cart-1; east: cart-1; edge: cart-1",
        ),
        (
            "exported to one, offered by nobody",
            documents(&[&base, &export("shop/cart", "east")]),
            &[][..],
            "west: cart-1",
        ),
    ] {
        assert_eq!(serving(&mean(&manifests, peers), host), expected, "{what}");
    }
    let scoped = base.replace(
        "{name: cart, namespace: shop}",
        "{name: cart, namespace: shop, annotations: {veer.dev/scope: clusterset}}",
    );
    let meaning = mean(&scoped, &peers);
    assert_eq!(serving(&meaning, "cart.shop.svc.cluster.local"), "west: cart-1; east: cart-1; edge: cart-1");
}

#[test]
fn per_cluster_names_lead_to_one_peer() {
    let peers = [offering("east", 2, &["shop/cart"]), offering("edge", 3, &["shop/cart"])];
    let text = documents(&[
        &link("east", 2, ""),
        &link("edge", 3, ""),
        &import("shop/cart", true),
        &service("shop/cart-edge"),
    ]);
    let meaning = mean(&text, &peers);
    assert_eq!(serving(&meaning, "cart-east.shop.svc.cluster.local"), "east: cart-1");
    assert_eq!(serving(&meaning, "cart-edge.shop.svc.cluster.local"), "west: ", "a real Service keeps its name");
    assert_eq!(codes(&meaning.faults), ["V0331"]);
}

#[test]
fn offers_go_to_their_audience_with_tokens_for_it() {
    let text = documents(&[
        &service("shop/cart"),
        &workload("shop/cart-1", "cart", 11),
        &link("east", 2, ""),
        &link("edge", 3, ""),
        &export("shop/cart", "east,south"),
    ]);
    let meaning = mean(&text, &[]);
    assert_eq!(codes(&meaning.faults), ["V0321"], "south is no peer");
    assert!(meaning.offers[&cluster("edge")].is_empty());
    let offer = &meaning.offers[&cluster("east")][0];
    assert_eq!(&*offer.endpoints[0].ports[0].token, "east-e1-127-1-0-11-8080");
    let service = &meaning.gateway.services[0];
    assert_eq!(service.endpoints, ["127.1.0.11:15008".parse().unwrap()]);
    assert_eq!(&*offer.service_tokens[0].token, format!("east-e1-s{}-8080", service.id));
    assert_eq!(offer.service_tokens[0].identities[0].to_string(), "spiffe://west.example/ns/shop/sa/cart");
    let inbound = &meaning.inbound[&object("shop/cart-1")];
    assert!(inbound.admits(&"east.example".parse().unwrap(), 8080));
    assert!(!inbound.admits(&"edge.example".parse().unwrap(), 8080));
    assert!(!inbound.admits(&"east.example".parse().unwrap(), 9080));
}

#[test]
fn an_export_leads_to_a_service_and_takes_only_what_is_in_the_mesh() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [127.1.0.99]}]";
    let text = documents(&[
        &service("shop/cart"),
        &workload("shop/cart-1", "cart", 11),
        slice,
        &link("east", 2, ""),
        &export("shop/cart", "*"),
        &export("shop/none", "*"),
    ]);
    let meaning = mean(&text, &[]);
    assert_eq!(meaning.offers[&cluster("east")].len(), 1);
    assert_eq!(meaning.offers[&cluster("east")][0].endpoints.len(), 1);
    assert_eq!(codes(&meaning.faults), ["V0322", "V0320"]);
}

#[test]
fn inbound_leads_to_the_application() {
    let cart = service("shop/cart").replace("port: 80,", "port: 80, appProtocol: grpc,");
    let meaning = mean(
        &documents(&[&cart, &workload("shop/cart-1", "cart", 11).replace("serviceAccount: cart", "capacity: 7")]),
        &[],
    );
    let inbound = &meaning.inbound[&object("shop/cart-1")];
    let port = inbound.port(8080).unwrap();
    assert_eq!(port.app, "127.1.0.11:9080".parse().unwrap());
    assert_eq!(port.protocol, veer_core::AppProtocol::Grpc, "the workload did not say, the service did");
    assert_eq!((port.service.as_deref(), port.capacity), (Some("cart"), Some(7)));
}

//! Proxies and gateways of one cluster: joining, following, renewing, and what they are refused.

use std::time::Duration;

use veer_control::api::TokenRequest;
use veer_core::offer::PeerGateways;
use veer_core::{Endpoints, GatewayConfig, Inbound, Ingress, Known, Offer, Service};
use veer_identity::KeyRequest;
use veer_xds::Code;
use veer_xds::agent::{Report, report};
use veer_xds::enroll::{self, Renew};

use crate::harness::{Cluster, Proxy, enroll, identity, local, service, until};

const CART: &str = "cart.shop.svc.cluster.local";

async fn west() -> Cluster {
    let mut west = Cluster::new("west").await;
    west.write("cart.yaml", &service("cart", "127.1.0.1", None));
    west.write("web.yaml", &service("web", "127.1.0.2", None));
    west.start_ready().await;
    west
}

#[test]
fn a_proxy_joins_and_sees_an_edit_within_a_second() {
    local(async {
        let west = west().await;
        let proxy = west.proxy("shop/web-1").await;
        assert_eq!(proxy.identity.svid().id.to_string(), "spiffe://west.example/ns/shop/sa/web");
        let mut cart = proxy.client.subscribe::<Endpoints>(CART);
        let endpoints = cart.answer().await.present().cloned().expect("cart is there");
        assert_eq!(endpoints.clusters[0].endpoints[0].address.to_string(), "127.1.0.1");
        let mut nobody = proxy.client.subscribe::<Service>("nobody.shop.svc.cluster.local");
        assert_eq!(nobody.answer().await, Known::Absent);

        west.write("cart.yaml", &service("cart", "127.1.0.9", None));
        let changed = tokio::time::timeout(Duration::from_secs(1), cart.changed()).await.expect("within a second");
        assert_eq!(changed.present().unwrap().clusters[0].endpoints[0].address.to_string(), "127.1.0.9");

        let channel = proxy.client.channel().unwrap();
        let own = Report { workload: Some("shop/web-1".parse().unwrap()), version: "9".into(), ..Report::default() };
        report(&channel, &own).await.unwrap();
        let other = Report { workload: Some("shop/cart-1".parse().unwrap()), ..own };
        assert_eq!(report(&channel, &other).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(west.status().proxies.connected, 1);
    });
}

#[test]
fn a_workload_reads_by_name_and_only_its_own_inside() {
    local(async {
        let west = west().await;
        let proxy = west.proxy("shop/web-1").await;
        let mut own = proxy.client.subscribe::<Inbound>("shop/web-1");
        assert!(own.answer().await.present().is_some());
        assert_eq!(proxy.client.subscribe::<Inbound>("shop/cart-1").answer().await, Known::Absent);
        assert_eq!(proxy.client.subscribe::<GatewayConfig>("west").answer().await, Known::Absent);
        assert_eq!(proxy.client.subscribe::<PeerGateways>("west").answer().await, Known::Absent);
        let all = proxy.client.subscribe_all::<Service>().answer().await;
        assert!(all.present().is_none_or(|all| all.is_empty()), "a workload cannot list the cluster");
        let offers = proxy.client.subscribe_all::<Offer>().answer().await;
        assert!(offers.present().is_none_or(|all| all.is_empty()));
    });
}

#[test]
fn a_certificate_does_not_stand_for_another_workload() {
    local(async {
        let west = west().await;
        let token = west.workload_token("shop/web-1");
        let request = KeyRequest::new().unwrap();
        let enrolled = enroll(&token, &request).await.unwrap();
        let liar = Proxy::follow(identity(request, enrolled), &token, "shop/cart-1");
        assert_eq!(liar.client.subscribe::<Inbound>("shop/cart-1").answer().await, Known::Absent);
        assert_eq!(liar.client.subscribe::<Service>(CART).answer().await, Known::Absent);
    });
}

#[test]
fn a_gateway_gets_its_configuration_and_no_services() {
    local(async {
        let west = west().await;
        let token = west.token(TokenRequest { gateway: Some("g1".into()), workload: None });
        let gateway = Proxy::join(&token, "").await;
        assert_eq!(gateway.identity.svid().id.to_string(), "spiffe://west.example/ns/veer-system/sa/gateway");
        let config = gateway.client.subscribe::<GatewayConfig>("west").answer().await;
        assert_eq!(config.present().unwrap().control, [west.handle().listen()]);
        assert_eq!(gateway.client.subscribe::<Service>(CART).answer().await, Known::Absent);
        assert_eq!(gateway.client.subscribe::<Inbound>("shop/web-1").answer().await, Known::Absent);
    });
}

#[test]
fn keys_of_a_gateway_are_given_to_its_own_proxy_and_nobody_else() {
    local(async {
        let west = west().await;
        let pem = |label: &str| format!("-----BEGIN {label}-----\\nS0VZ\\n-----END {label}-----\\n");
        west.write(
            "gateway.yaml",
            &format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: shop}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: \"{}\", tls.key: \"{}\"}}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\nspec:\n  gatewayClassName: veer\n  addresses: [{{value: 127.1.0.99}}]\n  listeners: [{{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}]\n",
                pem("CERTIFICATE"),
                pem("PRIVATE KEY")
            ),
        );
        let own = "shop/web-gateway";
        let handle = west.handle();
        let told = |path: &str| {
            let answer = handle.answer(&veer_control::ApiRequest::get(path));
            String::from_utf8_lossy(&answer.body).into_owned()
        };
        until("the Gateway is served", || told("/v1/objects?kind=gateway").contains("Programmed").then_some(())).await;
        let proxy = Proxy::join(&west.workload_token(own), own).await;
        let ingress = proxy.client.subscribe::<Ingress>(own).answer().await;
        let ingress = ingress.present().cloned().expect("its own");
        assert!(ingress.ports[0].listeners[0].certificates[0].key_pem.contains("S0VZ"));
        let other = west.proxy("shop/web-1").await;
        assert_eq!(other.client.subscribe::<Ingress>(own).answer().await, Known::Absent);
        for path in ["/v1/dump", "/v1/status", "/v1/objects?kind=all"] {
            assert!(!told(path).contains("S0VZ"), "{path} shows a key");
        }
    });
}

#[test]
fn a_gateway_is_programmed_when_its_proxy_has_acknowledged_it() {
    local(async {
        let mut west = west().await;
        let gateway = |port: u16| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\nspec:\n  gatewayClassName: veer\n  addresses: [{{value: 127.1.0.99}}]\n  listeners: [{{name: a, port: {port}, protocol: HTTP}}]\n"
            )
        };
        // Reasons of `Programmed`: the Gateway's, and that of its listener.
        let programmed = |west: &crate::harness::Cluster| {
            let answer = west.handle().answer(&veer_control::ApiRequest::get("/v1/objects?kind=gateway"));
            let objects: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
            let reason = |part: &serde_json::Value| {
                let conditions = part["conditions"].as_array()?;
                let found = conditions.iter().find(|condition| condition["type"] == "Programmed")?;
                Some(found["reason"].as_str()?.to_owned())
            };
            let status = &objects[0]["status"];
            Some((reason(status)?, reason(&status["listeners"][0])?))
        };
        let both = |word: &str| Some((word.to_owned(), word.to_owned()));
        west.write("gateway.yaml", &gateway(80));
        until("the Gateway is known", || programmed(&west)).await;
        assert_eq!(programmed(&west), both("Pending"), "nobody serves it");
        let own = "shop/web-gateway";
        let token = west.workload_token(own);
        let proxy = Proxy::join(&token, own).await;
        assert_eq!(programmed(&west), both("Pending"), "its proxy has not asked");
        let mut ingress = proxy.client.subscribe::<Ingress>(own);
        assert!(matches!(ingress.answer().await, Known::Present(_)));
        until("it is programmed", || (programmed(&west) == both("Programmed")).then_some(())).await;
        // What came after is not acknowledged by what was said before.
        let identity = proxy.identity.clone();
        drop((ingress, proxy));
        west.write("gateway.yaml", &gateway(81));
        until("the change is pending", || (programmed(&west) == both("Pending")).then_some(())).await;
        // By a relay that leads to the control plane wherever it is after its restart.
        let mut token = token;
        token.control = vec![west.relay.address];
        let again = Proxy::follow(identity, &token, own);
        let mut ingress = again.client.subscribe::<Ingress>(own);
        assert!(matches!(ingress.answer().await, Known::Present(_)));
        until("the change is programmed", || (programmed(&west) == both("Programmed")).then_some(())).await;
        // A control plane that has started again learns it from a proxy that is sent nothing new.
        west.kill().await;
        west.start_ready().await;
        until("it is programmed still", || (programmed(&west) == both("Programmed")).then_some(())).await;
        drop(ingress);
    });
}

#[test]
fn a_token_admits_once_and_only_for_somebody_who_is_there() {
    local(async {
        let west = west().await;
        let token = west.workload_token("shop/web-1");
        let (first, second) = (KeyRequest::new().unwrap(), KeyRequest::new().unwrap());
        enroll(&token, &first).await.unwrap();
        enroll(&token, &first).await.expect("the same key may ask again: its answer may have been lost");
        let refused = enroll(&token, &second).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("used already"), "{}", refused.message());
        let mut guess = west.workload_token("shop/web-1");
        guess.secret = token.secret.chars().rev().collect();
        assert_eq!(enroll(&guess, &second).await.unwrap_err().code(), Code::PermissionDenied);
    });
}

#[test]
fn renewal_ends_with_the_workload_and_so_does_the_session() {
    local(async {
        let west = west().await;
        let proxy = west.proxy("shop/web-1").await;
        let mut cart = proxy.client.subscribe::<Service>(CART);
        assert!(cart.answer().await.present().is_some());
        let channel = proxy.client.channel().unwrap();
        let request = KeyRequest::new().unwrap();
        let renew = |workload: &str| Renew { csr_der: request.csr_der.clone(), workload: workload.to_owned() };
        let renewed = enroll::renew(&channel, renew("shop/web-1")).await.unwrap();
        assert_eq!(renewed.id, proxy.identity.svid().id);
        assert_eq!(enroll::renew(&channel, renew("shop/cart-1")).await.unwrap_err().code(), Code::PermissionDenied);

        west.remove("web.yaml");
        until("the session is closed", || (!proxy.client.status().connected).then_some(())).await;
        let connected = until("it comes back with its old certificate", || proxy.client.channel()).await;
        let refused = enroll::renew(&connected, renew("shop/web-1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
        assert!(cart.borrow().present().is_some(), "silence deletes nothing at the proxy");
    });
}

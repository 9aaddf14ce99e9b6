//! The HTTP API and the socket of privileged verbs.

use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use veer_control::api::{GatewayStatus, RotateAnswer, ServiceSummary, Status};
use veer_control::{ApiRequest, socket_path};
use veer_core::{GatewayConfig, Inbound, Service};

use crate::harness::{Cluster, Proxy, local, service, until};

async fn http(mut io: impl AsyncRead + AsyncWrite + Unpin, method: &str, target: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn the_api_tells_and_only_the_socket_orders() {
    local(async {
        let mut west = Cluster::new("west").await;
        west.write("cart.yaml", &service("cart", "127.1.0.1", None));
        west.write(
            "broken.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: 7_bad, namespace: shop}\nspec: {ports: 3}\n",
        );
        let handle = west.start_ready().await;
        let get = async |target: &str| {
            http(tokio::net::TcpStream::connect(handle.api()).await.unwrap(), "GET", target, "").await
        };
        assert_eq!(get("/live").await.0, 200);
        assert_eq!(get("/ready").await.0, 200);
        let (_, metrics) = get("/metrics").await;
        assert!(metrics.contains("veer_control_ready{cluster=\"west\"} 1"), "{metrics}");
        let status: Status = serde_json::from_str(&get("/v1/status").await.1).unwrap();
        assert!(status.ready && status.generation > 0);
        let fault = status.faults.iter().find(|fault| fault.file.ends_with("broken.yaml")).expect("the fault is told");
        assert!(fault.line > 0 && !fault.mend.is_empty(), "{fault:?}");
        let services: Vec<ServiceSummary> = serde_json::from_str(&get("/v1/services").await.1).unwrap();
        assert!(services.iter().any(|service| service.host.as_str() == "cart.shop.svc.cluster.local"));
        let routes: Vec<Service> = serde_json::from_str(&get("/v1/routes?host=cart.shop").await.1).unwrap();
        assert_eq!(routes.len(), 1);
        assert_eq!(get("/v1/endpoints?host=cart").await.0, 200);
        assert_eq!(get("/v1/nothing").await.0, 404);

        let ordered = http(tokio::net::TcpStream::connect(handle.api()).await.unwrap(), "POST", "/v1/rotate", "").await;
        assert_eq!(ordered.0, 403, "the port orders nothing");
        let socket = socket_path(&west.state());
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let order = async |target: &str, body: &str| {
            http(tokio::net::UnixStream::connect(&socket).await.unwrap(), "POST", target, body).await
        };
        assert_eq!(order("/v1/tokens", "{\"workload\": \"shop/cart-1\"}").await.0, 200);
        assert_eq!(order("/v1/tokens", "{\"workload\": \"shop/nobody\"}").await.0, 404);
        assert_eq!(order("/v1/tokens", "{}").await.0, 400);
        assert_eq!(order("/v1/tokens", &"x".repeat(100_000)).await.0, 413);

        let second = veer_control::Control::bind(west.config()).await.unwrap_err();
        assert!(second.to_string().contains("another control plane"), "{second}");
    });
}

#[test]
fn rotation_and_draining_reach_those_they_are_for_and_survive_a_restart() {
    local(async {
        let mut west = Cluster::new("west").await;
        west.write("cart.yaml", &service("cart", "127.1.0.1", None));
        let handle = west.start_ready().await;
        let proxy = west.proxy("shop/cart-1").await;
        let mut inbound = proxy.client.subscribe::<Inbound>("shop/cart-1");
        assert_eq!(inbound.answer().await.present().unwrap().rotate, 0);
        let gateway_token = west.token(veer_control::api::TokenRequest { gateway: Some("g1".into()), workload: None });
        let gateway = Proxy::join(&gateway_token, "").await;
        let mut config = gateway.client.subscribe::<GatewayConfig>("west");
        config.answer().await;

        let answer = handle.answer(&ApiRequest::post("/v1/rotate", &()));
        assert_eq!(serde_json::from_slice::<RotateAnswer>(&answer.body).unwrap().rotate, 1);
        assert_eq!(inbound.changed().await.present().unwrap().rotate, 1);
        assert_eq!(config.changed().await.present().unwrap().rotate, 1);

        let answer = handle.answer(&ApiRequest::post("/v1/gateways/g1/drain", &()));
        assert!(serde_json::from_slice::<GatewayStatus>(&answer.body).unwrap().draining);
        assert_eq!(handle.answer(&ApiRequest::post("/v1/gateways/g9/drain", &())).status, 404);

        west.kill().await;
        west.start_ready().await;
        assert!(west.status().gateways[0].draining);
        // Nothing has changed for the proxy, so that nothing is sent again; the session comes back by itself.
        until("the restarted control plane knows its proxies again", || (west.status().ready).then_some(())).await;
        let again = west.proxy("shop/cart-1").await;
        assert_eq!(again.client.subscribe::<Inbound>("shop/cart-1").answer().await.present().unwrap().rotate, 1);
    });
}

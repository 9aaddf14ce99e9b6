//! The page: asks two other services, through the proxy beside this copy.

use http::{HeaderMap, HeaderName, StatusCode};
use prost::Message;
use veer_load::{Client, Request};

use crate::price::{QUOTE, QuoteReply, QuoteRequest, unframe};
use crate::{Answer, Replica, SERVED_BY, json, text};

/// Fields of a visitor's request that go along with every request made for it: who it is, and the trace (W3C).
const PASSED_ON: [HeaderName; 3] =
    [HeaderName::from_static("user"), HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

pub(crate) async fn page(copy: &Replica, visitor: &HeaderMap) -> Answer {
    let items = Request::get("items", "catalog", "/items");
    let quote = Request::grpc("quote", "price", QUOTE, &QuoteRequest { item: "compass".to_owned() }.encode_to_vec());
    match tokio::join!(ask(&copy.catalog, items, visitor), ask(&copy.price, quote, visitor)) {
        (Ok(items), Ok(quote)) => {
            let served_by = format!("{},{},{}", copy.served_by(), by(&items), by(&quote));
            let catalog: serde_json::Value = serde_json::from_slice(&items.body).unwrap_or_default();
            let price = unframe::<QuoteReply>(&quote.body).map(|reply| reply.cents);
            json(&serde_json::json!({ "catalog": catalog, "price_cents": price }), &served_by)
        }
        (Err(why), _) | (_, Err(why)) => text(StatusCode::BAD_GATEWAY, &format!("{why}\n")),
    }
}

async fn ask(client: &Client, mut request: Request, visitor: &HeaderMap) -> Result<veer_load::Answer, String> {
    for name in PASSED_ON {
        if let Some(value) = visitor.get(&name) {
            request = request.with_header(name, value.clone());
        }
    }
    let answer = client.send(&request).await.map_err(|failure| format!("{}: {failure}", request.kind))?;
    if !answer.ok {
        let words = answer.words().unwrap_or_default();
        return Err(format!("{}: status {}: {words}", request.kind, answer.status));
    }
    Ok(answer)
}

fn by(answer: &veer_load::Answer) -> &str {
    answer.headers.get(SERVED_BY).and_then(|by| by.to_str().ok()).unwrap_or("unknown")
}

//! Steps of routing and balancing.

use std::hint::black_box;
use std::time::Duration;

use ::http::HeaderMap;
use anyhow::Context as _;
use tokio::time::Instant;
use veer_balance::Outcome;
use veer_core::route::HttpRoute;
use veer_route::{Matcher, NormalPath, RequestView};

use crate::choice;

const PATH: &str = "/shop/v1/items/4711";

/// An endpoint among 1,000, and its request's end.
pub fn pick(count: usize) -> anyhow::Result<()> {
    // Time stands still: plans are not made anew.
    let now = Instant::now();
    let (mut picker, mut rng) = (choice::picker(now)?, fastrand::Rng::with_seed(7));
    for _ in 0..count {
        let pick = black_box(picker.pick(now, &mut rng, &[])?);
        pick.finish(Outcome::Success, Duration::from_millis(1), now);
    }
    Ok(())
}

/// A path in normal form.
pub fn path(count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        black_box(NormalPath::parse(black_box(PATH))?);
    }
    Ok(())
}

/// A rule among 100.
pub fn find(count: usize) -> anyhow::Result<()> {
    let rules: Vec<serde_json::Value> = (0..100)
        .map(|n| serde_json::json!({ "matches": [{ "path": { "prefix": format!("/shop/v{n}/items") } }] }))
        .collect();
    let route: HttpRoute = serde_json::from_value(serde_json::json!({ "name": "shop/items", "rules": rules }))?;
    let matcher = Matcher::new(&[route], "shop");
    let (path, headers) = (NormalPath::parse(PATH)?, HeaderMap::new());
    let request =
        RequestView { method: "GET", path: &path, query: None, authority: Some("items.shop"), headers: &headers };
    for _ in 0..count {
        black_box(matcher.find(black_box(&request))).context("no rule matches")?;
    }
    Ok(())
}

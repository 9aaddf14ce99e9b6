use std::time::Duration;

use veer_load::{ClosedLoad, ClosedPlan};

use super::*;
use crate::side_by_side::works::{Kind, Row, Work};

#[tokio::test]
async fn every_request_of_a_closed_loop_is_answered() -> anyhow::Result<()> {
    let address = "127.76.1.1:9000".parse()?;
    for work in Work::ALL {
        let shape = work.shape();
        if shape.row != Row::Single || shape.kind != Kind::Closed {
            continue;
        }
        let origin = Origin::start(&shape, &[address]).await?;
        let plan = ClosedPlan {
            target: address,
            connections: 4,
            exchange: shape.exchange("origin"),
            reconnect: shape.reconnect,
        };
        let load = ClosedLoad::start(plan).await?;
        let report = load.measure(Duration::from_millis(200)).await;
        assert_eq!(report.summary.failures, 0, "{work:?}: {:?}", report.reasons);
        assert!(report.summary.requests > 5, "{work:?}: {report:?}");
        drop(load);
        origin.end().await;
    }
    Ok(())
}

//! Keeping a stream open, and applying what it says.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use veer_net::{Backoff, BoxedIo};

use super::{SessionOptions, SessionState, Shared};
use crate::grpc::{Channel, unavailable};
use crate::node::NodeInfo;
use crate::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status as ProtoStatus};
use crate::server::ADS;

/// Acknowledgements that may wait to be sent; beyond, nothing more is read. A well-behaved server has one response per type in
/// Refusals of one response that are told one by one; the others are refused without a word.
const MAX_REASONS: usize = 32;
/// flight.
const MAX_ACKS: usize = 64;

/// Looking for what nobody uses more often than this would cost more than it saves.
const LEAST_SWEEP: Duration = Duration::from_millis(100);

/// Feeds a [`Client`](super::Client); run it on one task of a local task set.
pub struct Session {
    shared: Arc<Shared>,
    node: NodeInfo,
    options: SessionOptions,
    backoff: Backoff,
    was_synced: bool,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, node: NodeInfo, rng: fastrand::Rng, options: SessionOptions) -> Self {
        let backoff = Backoff::new(options.backoff_base, options.backoff_max, rng);
        Self { shared, node, options, backoff, was_synced: false }
    }

    /// Dials, follows, and does so again for ever. Each attempt gets its connection from `dial`, which decides where to and as
    /// whom; it is given up after the dial time-out.
    pub async fn run(mut self, dial: impl AsyncFn() -> io::Result<BoxedIo>) -> Infallible {
        loop {
            let limit = self.options.dial_timeout;
            let ended = match timeout(limit, dial()).await {
                Ok(Ok(io)) => match self.follow(io).await {
                    Err(status) => format!("{}: {}", code_name(status.code()), status.message()),
                    Ok(()) => "the control plane ended the stream".to_owned(),
                },
                Ok(Err(error)) => format!("connecting to the control plane: {error}"),
                Err(_) => format!("connecting to the control plane exceeded {limit:?}"),
            };
            tracing::info!(reason = ended, "control session lost");
            self.disconnected(ended);
            self.backoff.wait().await;
        }
    }

    /// One stream, to its end.
    async fn follow(&mut self, io: BoxedIo) -> Result<(), Status> {
        let limit = self.options.dial_timeout;
        let channel = timeout(limit, Channel::connect(io, self.options.keep_alive))
            .await
            .map_err(|_| Status::deadline_exceeded(format!("HTTP/2 exceeded {limit:?}")))?
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut grpc = channel.grpc();
        grpc.ready().await.map_err(unavailable)?;
        let (requests, outgoing) = mpsc::channel(1);
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let mut opening =
            pin!(grpc.streaming(Request::new(ReceiverStream::new(outgoing)), PathAndQuery::from_static(ADS), codec));
        let mut responses: Option<Streaming<DeltaDiscoveryResponse>> = None;

        let mut stream = StreamProgress {
            node: Some(self.node.to_proto()),
            acks: VecDeque::new(),
            awaited: self.shared.store().begin_stream(),
        };
        let mut sweep = tokio::time::interval((self.options.idle_grace / 4).max(LEAST_SWEEP));
        loop {
            let asks = !stream.acks.is_empty() || self.shared.store().has_pending();
            // In order, so that a simulation repeats itself: what is owed first, what comes last, so that a flood of it starves nothing.
            tokio::select! {
                biased;
                // tonic drops the receiver when the call has failed; why, `opening` or `responses` tell.
                Ok(permit) = requests.reserve(), if asks => {
                    if let Some(request) = self.next_request(&mut stream) {
                        permit.send(request);
                    }
                }
                opened = &mut opening, if responses.is_none() => {
                    responses = Some(opened?.into_inner());
                    self.connected(&channel);
                    if stream.awaited.is_empty() {
                        self.synced();
                    }
                }
                () = self.shared.wake.notified() => {}
                _ = sweep.tick() => self.sweep(),
                message = next(&mut responses), if stream.acks.len() < MAX_ACKS => {
                    let Some(response) = message? else { return Ok(()) };
                    self.apply(response, &mut stream);
                }
            }
        }
    }

    /// Gives back what nobody has used for a while. Not in silence: what was let go then could not be had again.
    fn sweep(&self) {
        if self.state() != SessionState::Synced {
            return;
        }
        let Some(before) = Instant::now().checked_sub(self.options.idle_grace) else { return };
        let synced_since = self.shared.progress().since;
        let mut store = self.shared.store();
        store.sweep(before);
        if synced_since <= before {
            store.drop_unused_cache();
        }
    }

    fn next_request(&self, stream: &mut StreamProgress) -> Option<DeltaDiscoveryRequest> {
        let request = stream.acks.pop_front().or_else(|| self.shared.store().next_request());
        request.map(|request| DeltaDiscoveryRequest { node: stream.node.take(), ..request })
    }

    /// Applies a response resource by resource, and acknowledges it.
    fn apply(&mut self, response: DeltaDiscoveryResponse, stream: &mut StreamProgress) {
        let type_url = response.type_url.as_str();
        let mut refused = BTreeSet::new();
        let mut reasons = Vec::new();
        let mut changed = false;
        for resource in &response.resources {
            let (one, all) = self.shared.store().places(type_url, &resource.name);
            // Nobody wants it any more: the request that says so is on its way.
            if one.is_none() && all.is_none() {
                continue;
            }
            let body = resource.resource.as_ref().map_or(&[][..], |any| &any.value);
            let put_one = one.map_or(Ok(false), |slot| slot.put(body));
            let put_all = all.map_or(Ok(()), |slot| slot.put(&resource.name, body));
            match put_one.and_then(|news| put_all.map(|()| news)) {
                Ok(news) => changed |= news,
                Err(reason) => {
                    if reasons.len() < MAX_REASONS {
                        reasons.push(format!("{}: {reason}", resource.name));
                    }
                    refused.insert(resource.name.clone());
                }
            }
        }
        for name in &response.removed_resources {
            let (one, all) = self.shared.store().places(type_url, name);
            changed |= one.is_some_and(|slot| slot.absent());
            if let Some(all) = all {
                all.absent(name);
            }
        }
        if !response.more {
            let collection = self.shared.store().collection(type_url);
            changed |= collection.is_some_and(|collection| collection.commit());
        }
        self.shared.store().applied(&response, &refused, changed);
        self.record(&response, &reasons);

        let error_detail = (!reasons.is_empty())
            .then(|| ProtoStatus { code: tonic::Code::InvalidArgument as i32, message: reasons.join("; ") });
        if !response.more && stream.awaited.remove(type_url) && stream.awaited.is_empty() {
            self.synced();
        }
        stream.acks.push_back(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            error_detail,
            ..Default::default()
        });
    }

    fn record(&self, response: &DeltaDiscoveryResponse, reasons: &[String]) {
        let mut progress = self.shared.progress();
        progress.last_message = Some(Instant::now());
        progress.responses += 1;
        progress.server_generation.clone_from(&response.system_version_info);
        if let Some(server) = &response.control_plane {
            progress.server.clone_from(&server.identifier);
        }
        if !reasons.is_empty() {
            let text = format!("{}: {}", response.type_url, reasons.join("; "));
            tracing::warn!(reason = text, "resources refused; their last good versions stay");
            progress.nacks += 1;
            progress.last_nack = Some(text);
        }
        if let Some(error) = response.resource_errors.first() {
            let name = error.resource_name.as_ref().map_or("", |name| &name.name);
            let why = error.error_detail.as_ref().map_or("", |status| &status.message);
            progress.last_error = Some(format!("{} {name}: {why}", response.type_url));
        }
    }

    fn state(&self) -> SessionState {
        *self.shared.state.borrow()
    }

    fn enter(&self, state: SessionState) {
        self.shared.progress().since = Instant::now();
        self.shared.state.send_if_modified(|current| std::mem::replace(current, state) != state);
    }

    fn connected(&self, channel: &Channel) {
        {
            let mut progress = self.shared.progress();
            progress.connected = true;
            progress.connections += 1;
            progress.channel = Some(channel.clone());
        }
        self.enter(SessionState::AwaitFirst);
    }

    fn synced(&mut self) {
        self.was_synced = true;
        self.backoff.reset();
        self.shared.progress().stale_since = None;
        self.enter(SessionState::Synced);
    }

    fn disconnected(&self, reason: String) {
        {
            let mut progress = self.shared.progress();
            progress.connected = false;
            progress.channel = None;
            progress.last_error = Some(reason);
            progress.stale_since.get_or_insert_with(Instant::now);
        }
        let state = if self.was_synced { SessionState::Stale } else { SessionState::Connecting };
        if self.state() != state {
            self.enter(state);
        }
    }
}

/// What one stream has still to do.
struct StreamProgress {
    /// The introduction, until it was sent.
    node: Option<crate::proto::Node>,
    /// Acknowledgements; they go before new questions.
    acks: VecDeque<DeltaDiscoveryRequest>,
    /// Types that were asked for at the beginning and have not been answered.
    awaited: BTreeSet<&'static str>,
}

async fn next(
    responses: &mut Option<Streaming<DeltaDiscoveryResponse>>,
) -> Result<Option<DeltaDiscoveryResponse>, Status> {
    match responses {
        Some(responses) => responses.next().await.transpose(),
        None => std::future::pending().await,
    }
}

fn code_name(code: tonic::Code) -> String {
    format!("{code:?}")
}

//! One resource stream: requests in, responses out, one task.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::state::{Asked, StreamState};
use super::{ServerStats, Services, Subscriber};
use crate::node::{NodeInfo, PROTOCOL};
use crate::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Responses between the task and the connection. What a slow reader costs is bounded by acknowledgements: one response per
/// type; this only smooths their hand-over.
const QUEUE: usize = 4;

/// Opens the stream; the answer is its head.
pub(super) async fn open(
    who: Subscriber,
    services: Services,
    request: http::Request<Incoming>,
) -> http::Response<Body> {
    let codec = ProstCodec::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::default();
    let limit = services.limits.request_bytes;
    let (hand_over, requests) = tokio::sync::oneshot::channel();
    let (responses, outgoing) = mpsc::channel(QUEUE);
    // tonic wants its service to be Send, ours is not: so the service only passes the two ends on.
    let service = Opened { requests: Some(hand_over), outgoing: Some(outgoing) };
    let response = tonic::server::Grpc::new(codec).max_decoding_message_size(limit).streaming(service, request).await;
    if let Ok(requests) = requests.await {
        let task = StreamTask { state: StreamState::new(who, services.limits), services, responses };
        tokio::task::spawn_local(task.run(requests));
    }
    response
}

struct Opened {
    requests: Option<tokio::sync::oneshot::Sender<Streaming<DeltaDiscoveryRequest>>>,
    outgoing: Option<mpsc::Receiver<Result<DeltaDiscoveryResponse, Status>>>,
}

impl StreamingService<DeltaDiscoveryRequest> for Opened {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let passed = self.requests.take().zip(self.outgoing.take()).and_then(|(hand_over, outgoing)| {
            hand_over.send(request.into_inner()).ok().map(|()| Response::new(ReceiverStream::new(outgoing)))
        });
        std::future::ready(passed.ok_or_else(|| Status::internal("a stream was opened twice")))
    }
}

struct StreamTask {
    state: StreamState,
    services: Services,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl StreamTask {
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let _open = OpenStream::count(&self.services.stats);
        let mut changes = self.services.source.changes();
        let mut generation = *changes.borrow_and_update();
        let responses = self.responses.clone();
        let mut caught_up = 0;
        loop {
            if generation > caught_up && self.state.is_settled() {
                caught_up = generation;
                self.services.source.caught_up(&self.state.who, generation);
            }
            // What can be said now is said before anything else is heard, and a permit comes first, so that nothing is computed
            // for a reader who does not read. In order, so that a simulation repeats itself.
            let wants = generation > 0 && self.state.has_work();
            tokio::select! {
                biased;
                () = responses.closed() => return,
                () = changed(&mut changes) => {
                    generation = *changes.borrow_and_update();
                    self.state.everything_may_have_changed();
                }
                permit = responses.reserve(), if wants => {
                    let Ok(permit) = permit else { return };
                    if let Some(response) = self.next_response(generation) {
                        permit.send(Ok(response));
                    }
                }
                request = requests.next() => {
                    let ended = match request {
                        None => return,
                        Some(Ok(request)) => self.take(request),
                        Some(Err(status)) => {
                            ServerStats::add(&self.services.stats.malformed, 1);
                            Err(status)
                        }
                    };
                    if let Err(status) = ended {
                        // The reader may be gone already.
                        let _ = responses.try_send(Err(status));
                        return;
                    }
                }
            }
        }
    }

    fn next_response(&mut self, generation: u64) -> Option<DeltaDiscoveryResponse> {
        let mut response = self.state.next_response(&*self.services.source, generation)?;
        let identifier = self.services.identifier.to_string();
        response.control_plane = Some(crate::proto::ControlPlane { identifier });
        let stats = &self.services.stats;
        ServerStats::add(&stats.responses, 1);
        ServerStats::add(&stats.resources, response.resources.len());
        ServerStats::add(&stats.removals, response.removed_resources.len());
        Some(response)
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if let Some(node) = &request.node {
            let node = NodeInfo::from_proto(node);
            let theirs = node.versions;
            self.state.who.node = node;
            if PROTOCOL.common(theirs).is_none() {
                let (least, most) = (PROTOCOL.least, PROTOCOL.most);
                return Err(Status::failed_precondition(format!(
                    "this control plane speaks versions {least} to {most} of the protocol, the client {} to {}",
                    theirs.least, theirs.most
                )));
            }
        }
        let source = &self.services.source;
        let stats = &self.services.stats;
        let asked = self.state.take(request, |type_url| source.serves(type_url));
        let Asked { acknowledged, refused_names, unknown_type } = asked;
        ServerStats::add(&stats.refused_names, refused_names);
        ServerStats::add(&stats.unknown_types, usize::from(unknown_type));
        if let Some(acknowledged) = acknowledged {
            let (type_url, generation) = (&acknowledged.type_url, acknowledged.generation);
            match acknowledged.refusal {
                None => source.accepted(&self.state.who, type_url, generation),
                Some(reason) => {
                    ServerStats::add(&stats.nacks, 1);
                    tracing::warn!(peer = %self.state.who.id, type_url, reason, "resources refused by a subscriber");
                    source.rejected(&self.state.who, type_url, generation, &reason);
                }
            }
        }
        Ok(())
    }
}

/// Waits for a change; for ever once there can be none, which leaves the stream open with what is known.
async fn changed(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct OpenStream(Arc<ServerStats>);

impl OpenStream {
    fn count(stats: &Arc<ServerStats>) -> Self {
        stats.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(stats))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

//! A rule, ready to act.

use http::{HeaderValue, StatusCode};
use veer_core::names::ObjectName;
use veer_core::route::{Backend, Filter, HttpRoute, HttpRule, RouteKind};
use veer_http::{Fields, RequestHead};

use crate::backend::Deal;
use crate::filter::{HeaderEdit, Origin, redirect_location, rewritten_path};

/// A rule of a route with its filters compiled.
#[derive(Debug)]
pub struct Rule {
    /// The object it was written in.
    pub route: ObjectName,
    /// That object's kind.
    pub kind: RouteKind,
    /// Its place in the object, from 0.
    pub index: usize,
    /// The rule as written: backends, time-outs, retries.
    pub spec: HttpRule,
    request_headers: Box<[HeaderEdit]>,
    response_headers: Box<[HeaderEdit]>,
    deal: Deal,
}

/// An answer that a rule gives by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direct {
    /// Go elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// Value of `Location`.
        location: HeaderValue,
    },
    /// The rule cannot be carried out.
    Fail {
        /// The status to answer with.
        status: StatusCode,
        /// Why, for the access log.
        reason: std::sync::Arc<str>,
    },
}

impl Rule {
    pub(crate) fn new(route: &HttpRoute, index: usize) -> Self {
        let spec = route.rules[index].clone();
        let edits = |pick: fn(&Filter) -> Option<HeaderEdit>| spec.filters.iter().filter_map(pick).collect();
        let request_headers = edits(|f| match f {
            Filter::RequestHeaders(change) => Some(HeaderEdit::new(change)),
            _ => None,
        });
        let response_headers = edits(|f| match f {
            Filter::ResponseHeaders(change) => Some(HeaderEdit::new(change)),
            _ => None,
        });
        Self {
            route: route.name.clone(),
            kind: route.kind,
            index,
            request_headers,
            response_headers,
            spec,
            deal: Deal::default(),
        }
    }

    /// The next backend by weight; see [`Deal::pick`].
    pub fn pick_backend(&self) -> Option<&Backend> {
        self.deal.pick(&self.spec.backends)
    }

    /// The answer that the rule gives by itself, if it does. `path` and `query` are the request's, `prefix` is
    /// [`Matched::prefix`](crate::Matched::prefix).
    pub fn direct(&self, origin: &Origin<'_>, path: &str, query: Option<&str>, prefix: &str) -> Option<Direct> {
        // A filter that could not be understood fails the request, whatever else the rule says.
        let failure = self.spec.filters.iter().find_map(|filter| match filter {
            Filter::Fail { status, reason } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Some(Direct::Fail { status, reason: reason.clone() })
            }
            _ => None,
        });
        failure.or_else(|| {
            self.spec.filters.iter().find_map(|filter| match filter {
                Filter::Redirect { scheme, host, port, path: change, status } => {
                    let to = Origin {
                        scheme: scheme.as_deref().unwrap_or(origin.scheme),
                        host: host.as_deref().unwrap_or(origin.host),
                        port: redirect_port(scheme.as_deref(), *port, origin.port),
                    };
                    let changed = change.as_ref().map(|change| rewritten_path(change, path, prefix));
                    Some(match redirect_location(&to, changed.as_deref().unwrap_or(path), query) {
                        Some(location) => Direct::Redirect {
                            status: StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND),
                            location,
                        },
                        None => Direct::Fail {
                            status: StatusCode::INTERNAL_SERVER_ERROR,
                            reason: "the redirect's location is no header value".into(),
                        },
                    })
                }
                _ => None,
            })
        })
    }

    /// Changes the request before it is sent: fields, authority, path. `path` is the request's normal path, `prefix` is
    /// [`Matched::prefix`](crate::Matched::prefix). The query stays. Does nothing, and costs nothing, without filters.
    pub fn apply_request(&self, request: &mut RequestHead, path: &str, prefix: &str) {
        self.request_headers.iter().for_each(|edit| edit.apply(&mut request.fields));
        // A filter that sets `Host` names another authority, as a rewrite does.
        request.adopt_host();
        for filter in &self.spec.filters {
            if let Filter::Rewrite { host, path: change } = filter {
                if let Some(host) = host {
                    request.set_authority(host.as_bytes());
                }
                if let Some(change) = change {
                    let target = rewritten_path(change, path, prefix);
                    // Values that are no path were refused when the manifest was read; here they change nothing.
                    if target.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?')) {
                        request.set_path(&target);
                    }
                }
            }
        }
    }

    /// Changes the response's fields before it goes back.
    pub fn apply_response(&self, fields: &mut Fields) {
        self.response_headers.iter().for_each(|edit| edit.apply(fields));
    }
}

/// The Gateway API's rule: a port that is written, else the well-known port of the scheme that is written, else the port that
/// the request came to.
fn redirect_port(scheme: Option<&str>, port: Option<u16>, came_to: u16) -> u16 {
    port.unwrap_or(match scheme {
        Some("http") => 80,
        Some("https") => 443,
        _ => came_to,
    })
}

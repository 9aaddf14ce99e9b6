//! The filters of a rule or of one of its backends, compiled.

use http::{HeaderValue, StatusCode};
use veer_core::route::{Backend, ExternalAuth, Filter, PathChange};
use veer_http::{Fields, RequestHead};

use crate::backend::Share;
use crate::cors::CorsPolicy;
use crate::filter::{HeaderEdit, Origin, redirect_location, rewritten_path};

/// What a list of filters does. Empty lists cost nothing.
#[derive(Debug, Default)]
pub struct Filters {
    /// What cannot be understood or carried out fails the request, whatever else is written.
    failure: Option<(StatusCode, std::sync::Arc<str>)>,
    redirect: Option<Filter>,
    rewrites: Box<[Filter]>,
    request_headers: Box<[HeaderEdit]>,
    response_headers: Box<[HeaderEdit]>,
    mirrors: Box<[(Share, Backend)]>,
    cors: Option<Box<CorsPolicy>>,
    auth: Option<Box<ExternalAuth>>,
}

/// An answer that a rule gives by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Direct {
    /// Go elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// Value of `Location`.
        location: HeaderValue,
    },
    /// What a browser asked is answered: 204, with these fields.
    Preflight(Fields),
    /// The rule cannot be carried out.
    Fail {
        /// The status to answer with.
        status: StatusCode,
        /// Why, for the access log.
        reason: std::sync::Arc<str>,
    },
}

impl Filters {
    pub(crate) fn new(filters: &[Filter]) -> Self {
        let edits = |pick: fn(&Filter) -> Option<HeaderEdit>| filters.iter().filter_map(pick).collect();
        let failure = filters.iter().find_map(|filter| match filter {
            Filter::Fail { status, reason } => {
                Some((StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), reason.clone()))
            }
            Filter::Unknown(_) => {
                Some((StatusCode::INTERNAL_SERVER_ERROR, "a filter is not known to this version".into()))
            }
            // Whoever cannot be asked gives no leave.
            Filter::ExternalAuth(auth) => {
                let reason = auth.to.invalid.clone()?;
                Some((StatusCode::INTERNAL_SERVER_ERROR, reason))
            }
            _ => None,
        });
        let mirrors = filters.iter().filter_map(|filter| match filter {
            // A wrong reference drops the copies, not the requests (Gateway API).
            Filter::Mirror(mirror) if mirror.to.invalid.is_none() && mirror.numerator > 0 => {
                Some((Share::new(mirror.numerator, mirror.denominator), (*mirror.to).clone()))
            }
            _ => None,
        });
        Self {
            failure,
            redirect: filters.iter().find(|filter| matches!(filter, Filter::Redirect { .. })).cloned(),
            rewrites: filters.iter().filter(|filter| matches!(filter, Filter::Rewrite { .. })).cloned().collect(),
            request_headers: edits(|f| match f {
                Filter::RequestHeaders(change) => Some(HeaderEdit::new(change)),
                _ => None,
            }),
            response_headers: edits(|f| match f {
                Filter::ResponseHeaders(change) => Some(HeaderEdit::new(change)),
                _ => None,
            }),
            mirrors: mirrors.collect(),
            cors: filters.iter().find_map(|filter| match filter {
                Filter::Cors(cors) => Some(Box::new(CorsPolicy::new(cors))),
                _ => None,
            }),
            auth: filters.iter().find_map(|filter| match filter {
                Filter::ExternalAuth(auth) => Some(Box::new(auth.clone())),
                _ => None,
            }),
        }
    }

    /// Of a single backend, where filters that act before a backend is chosen have no place.
    pub(crate) fn of_backend(filters: &[Filter]) -> Self {
        let mut compiled = Self::new(filters);
        if compiled.cors.take().is_some() | compiled.auth.take().is_some() {
            compiled.fail("a filter has no place at a single backend".into());
        }
        compiled
    }

    pub(crate) fn fail(&mut self, reason: std::sync::Arc<str>) {
        self.failure.get_or_insert((StatusCode::INTERNAL_SERVER_ERROR, reason));
    }

    pub(crate) fn has_mirrors(&self) -> bool {
        !self.mirrors.is_empty()
    }

    /// Where copies of this request go. Ask once per request.
    pub(crate) fn mirrors(&self) -> impl Iterator<Item = &Backend> {
        self.mirrors.iter().filter(|(share, _)| share.is_due()).map(|(_, to)| to)
    }

    pub(crate) fn cors(&self) -> Option<&CorsPolicy> {
        self.cors.as_deref().filter(|_| self.failure.is_none())
    }

    pub(crate) fn auth(&self) -> Option<&ExternalAuth> {
        self.auth.as_deref()
    }

    pub(crate) fn direct(&self, origin: &Origin<'_>, path: &str, query: Option<&str>, prefix: &str) -> Option<Direct> {
        if let Some((status, reason)) = &self.failure {
            return Some(Direct::Fail { status: *status, reason: reason.clone() });
        }
        let Some(Filter::Redirect { scheme, host, port, path: change, status }) = &self.redirect else { return None };
        let to = Origin {
            scheme: scheme.as_deref().unwrap_or(origin.scheme),
            host: host.as_deref().unwrap_or(origin.host),
            port: redirect_port(scheme.as_deref(), *port, origin.port),
        };
        let changed = change.as_ref().map(|change| rewritten_path(change, path, prefix));
        Some(match redirect_location(&to, changed.as_deref().unwrap_or(path), query) {
            Some(location) => {
                Direct::Redirect { status: StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND), location }
            }
            None => Direct::Fail {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                reason: "the redirect's location is no header value".into(),
            },
        })
    }

    pub(crate) fn apply_request(&self, request: &mut RequestHead, path: &str, prefix: &str) {
        if !self.request_headers.is_empty() {
            self.request_headers.iter().for_each(|edit| edit.apply(&mut request.fields));
            // A filter that sets `Host` names another authority, as a rewrite does.
            request.adopt_host();
        }
        for filter in &self.rewrites {
            let Filter::Rewrite { host, path: change } = filter else { continue };
            if let Some(host) = host {
                request.set_authority(host.as_bytes());
            }
            if let Some(change) = change {
                rewrite_path(request, change, path, prefix);
            }
        }
    }

    pub(crate) fn apply_response(&self, fields: &mut Fields) {
        self.response_headers.iter().for_each(|edit| edit.apply(fields));
    }
}

fn rewrite_path(request: &mut RequestHead, change: &PathChange, path: &str, prefix: &str) {
    let target = rewritten_path(change, path, prefix);
    // Values that are no path were refused when the manifest was read; here they change nothing.
    if target.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?')) {
        request.set_path(&target);
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

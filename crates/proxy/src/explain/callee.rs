//! What the callee's proxy would say to a request: the steps of [`crate::inbound::request`] before the application is asked.

use veer_core::{Inbound, SpiffeId};
use veer_route::{Asked, Authorizer, NormalPath};

use super::{Admission, Question};
use crate::error::RequestError;
use crate::inbound::{admit, authorize, exposed};

/// Whether a workload lets the request in, from this caller to this port of its; `sent` is the request as it arrives.
pub fn admission(inbound: &Inbound, caller: Option<&SpiffeId>, port: u16, sent: &Question) -> Admission {
    let limits = inbound.port(port).into_iter().flat_map(|port| &port.limits);
    let limits = limits.map(|limit| format!("{limit} ({})", limit.by)).collect();
    match asked(inbound, caller, port, sent) {
        Ok(by) => Admission {
            admitted: true,
            why: match &by {
                Some(policy) => format!("let in by policy {policy}"),
                None => "let in: no ALLOW policy selects it".to_owned(),
            },
            policy: by,
            limits,
        },
        Err(error) => {
            let verdict = error.verdict();
            let why = format!("refused with {} ({}): {error}", verdict.status, verdict.flag);
            Admission { admitted: false, policy: None, limits, why }
        }
    }
}

fn asked(
    inbound: &Inbound,
    caller: Option<&SpiffeId>,
    port: u16,
    sent: &Question,
) -> Result<Option<String>, RequestError> {
    admit(inbound, caller, port)?;
    let head = sent.head()?;
    let path = NormalPath::parse(head.path()).map_err(|_| RequestError::Malformed("the path has no single reading"))?;
    exposed(inbound, caller, port, Some(head.method_str()))?;
    let authorizer = Authorizer::new(&inbound.authorization, inbound.identity.trust_domain.clone());
    let asked = Asked { port, method: Some(head.method_str()), path: Some(&path) };
    Ok(authorize(&authorizer, caller, &asked)?.map(|policy| policy.to_string()))
}

//! The listeners of a Gateway and its ListenerSets: which are valid, which are in conflict, which certificates they show.

use std::collections::BTreeMap;
use std::sync::Arc;

use veer_core::ObjectName;
use veer_core::ingress::{Certificate, ClientCertificates, PortKind};
use veer_resources::{
    CertificateRef, Diagnostic, FromNamespaces, FrontendValidationMode, GATEWAY_GROUP, GatewaySpec, Kind, KindName,
    LabelSelector, ListenerProtocol, ListenerSpec, Object, TLS_SECRET, TlsMode, has_pem,
};

use super::hostname::covers;
use crate::authorities::authorities;
use crate::faults;
use crate::routes::granted;
use crate::status::{Condition, ListenerStatus, No, RouteKindStatus};
use crate::view::View;

/// A listener and all that was found of it.
pub(super) struct Listener<'a> {
    /// The Gateway or the ListenerSet.
    pub owner: &'a Object,
    pub index: usize,
    pub spec: &'a ListenerSpec,
    /// `None`: no host, so that it is for every one.
    pub hostname: Option<Arc<str>>,
    /// Kinds of routes that may attach.
    pub kinds: Vec<&'static str>,
    pub certificates: Vec<Certificate>,
    /// What is asked of clients.
    pub clients: Option<ClientCertificates>,
    conflict: Option<No>,
    unaccepted: Option<No>,
    unresolved: Option<No>,
    overlap: Option<String>,
    pub attached: u32,
}

/// Judges the listeners of objects that come in the order of precedence: the Gateway, then its ListenerSets (GEP-1713).
pub(super) fn listeners<'a>(
    view: View<'_>,
    gateway: (&Object, &GatewaySpec),
    owners: &[(&'a Object, &'a [ListenerSpec])],
) -> Vec<Listener<'a>> {
    let mut all: Vec<Listener<'a>> = Vec::new();
    for (owner, specs) in owners {
        let first = all.len();
        all.extend(specs.iter().enumerate().map(|(index, spec)| Listener::new(view, gateway, owner, index, spec)));
        mark_conflicts(&mut all, first);
    }
    mark_overlaps(&mut all);
    all
}

impl<'a> Listener<'a> {
    fn new(
        view: View<'_>,
        (gateway_object, gateway): (&Object, &GatewaySpec),
        owner: &'a Object,
        index: usize,
        spec: &'a ListenerSpec,
    ) -> Self {
        let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty());
        let mut listener = Self {
            owner,
            index,
            spec,
            hostname,
            kinds: Vec::new(),
            certificates: Vec::new(),
            clients: None,
            conflict: None,
            unaccepted: None,
            unresolved: None,
            overlap: None,
            attached: 0,
        };
        let fitting = listener.fitting_kinds();
        if fitting.is_empty() {
            let protocol = spec.protocol.as_str();
            listener.unaccepted = Some(("UnsupportedProtocol", format!("protocol {protocol} is not served")));
        }
        listener.choose_kinds(&fitting);
        listener.find_certificates(view);
        listener.ask_clients(view, gateway_object, gateway);
        if let Some(tls) = spec.tls.as_ref().filter(|tls| matches!(tls.mode, TlsMode::Unknown(_))) {
            let message = format!("TLS mode {} is not known", tls.mode.as_str());
            listener.unaccepted.get_or_insert(("UnsupportedValue", message));
        }
        listener
    }

    /// How it is told apart from others of its port; `None`: it is not served.
    pub fn port_kind(&self) -> Option<PortKind> {
        match self.spec.protocol {
            ListenerProtocol::Http => Some(PortKind::Http),
            ListenerProtocol::Https | ListenerProtocol::Tls => Some(PortKind::Tls),
            ListenerProtocol::Tcp => Some(PortKind::Tcp),
            ListenerProtocol::Udp => Some(PortKind::Udp),
            ListenerProtocol::Unknown(_) => None,
        }
    }

    /// Whether TLS ends at the listener.
    pub fn ends_tls(&self) -> bool {
        match self.spec.protocol {
            ListenerProtocol::Https => true,
            ListenerProtocol::Tls => self.spec.tls.as_ref().is_none_or(|tls| tls.mode != TlsMode::Passthrough),
            _ => false,
        }
    }

    /// The name that logs and refusals show.
    pub fn name(&self) -> Arc<str> {
        match self.owner.kind.name() {
            KindName::Gateway => Arc::clone(&self.spec.name),
            _ => format!("{}/{}", self.owner.name(), self.spec.name).into(),
        }
    }

    /// Whether connections are taken for it.
    pub fn is_served(&self) -> bool {
        self.invalid().is_none()
    }

    /// Whether nothing is wrong with it. References that lead nowhere keep it from being served as soon as nothing is left to serve.
    fn invalid(&self) -> Option<String> {
        let hopeless = self
            .unresolved
            .as_ref()
            .filter(|_| self.kinds.is_empty() || (self.ends_tls() && self.certificates.is_empty()));
        [self.conflict.as_ref(), self.unaccepted.as_ref(), hopeless].into_iter().flatten().next().map(|no| no.1.clone())
    }

    /// Whether it may be called valid in its Gateway's own status.
    pub fn is_accepted(&self) -> bool {
        self.conflict.is_none() && self.unaccepted.is_none() && self.unresolved.is_none()
    }

    pub fn path(&self) -> String {
        format!("spec.listeners[{}]", self.index)
    }

    pub fn status(&self, unprogrammed: Option<&No>) -> ListenerStatus {
        let object = self.owner;
        let invalid = self.invalid().map(|message| ("Invalid", message));
        let accepted = self.conflict.as_ref().or(self.unaccepted.as_ref());
        let mut conditions = vec![
            Condition::unless(object, "Accepted", accepted),
            match &self.conflict {
                None => Condition::new(object, "Conflicted", false, "NoConflicts", String::new()),
                Some((reason, message)) => Condition::new(object, "Conflicted", true, reason, message.clone()),
            },
            Condition::unless(object, "Programmed", invalid.as_ref().or(unprogrammed)),
            Condition::unless(object, "ResolvedRefs", self.unresolved.as_ref()),
        ];
        if let Some(message) = &self.overlap {
            conditions.push(Condition::new(
                object,
                "OverlappingTLSConfig",
                true,
                "OverlappingHostnames",
                message.clone(),
            ));
        }
        ListenerStatus {
            name: self.spec.name.to_string(),
            supported_kinds: self.kinds.iter().map(|kind| RouteKindStatus::new(kind)).collect(),
            attached_routes: self.attached,
            conditions,
        }
    }

    pub fn faults(&self, faults: &mut Vec<Diagnostic>) {
        for (_, message) in [&self.conflict, &self.unaccepted, &self.unresolved].into_iter().flatten() {
            faults.push(faults::listener(self.owner, &self.path(), message));
        }
    }

    fn fitting_kinds(&self) -> Vec<&'static str> {
        match self.spec.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => vec!["HTTPRoute", "GRPCRoute"],
            ListenerProtocol::Tls if self.ends_tls() => vec!["TLSRoute", "TCPRoute"],
            ListenerProtocol::Tls => vec!["TLSRoute"],
            ListenerProtocol::Tcp => vec!["TCPRoute"],
            ListenerProtocol::Udp => vec!["UDPRoute"],
            ListenerProtocol::Unknown(_) => Vec::new(),
        }
    }

    fn choose_kinds(&mut self, fitting: &[&'static str]) {
        let asked = &self.spec.allowed_routes.kinds;
        if asked.is_empty() {
            self.kinds = fitting.to_vec();
            return;
        }
        for kind in asked {
            match fitting.iter().find(|fits| **fits == &*kind.kind && &*kind.group == GATEWAY_GROUP) {
                Some(fits) if !self.kinds.contains(fits) => self.kinds.push(fits),
                Some(_) => {}
                None => {
                    let protocol = self.spec.protocol.as_str();
                    let message = format!("{} of the group {:?} cannot attach to {protocol}", kind.kind, &*kind.group);
                    self.unresolved.get_or_insert(("InvalidRouteKinds", message));
                }
            }
        }
    }

    fn find_certificates(&mut self, view: View<'_>) {
        if !self.ends_tls() {
            return;
        }
        let refs = self.spec.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
        if refs.is_empty() {
            self.unresolved.get_or_insert(("InvalidCertificateRef", "no certificate is named".to_owned()));
        }
        for reference in refs {
            match certificate(view, self.owner, reference) {
                Ok(certificate) => self.certificates.push(certificate),
                Err(no) => drop(self.unresolved.get_or_insert(no)),
            }
        }
    }
}

impl Listener<'_> {
    /// What the Gateway asks of clients at listeners for HTTPS (GEP-91), its ListenerSets' among them. Where all of its
    /// authorities are missing nobody is served.
    fn ask_clients(&mut self, view: View<'_>, object: &Object, gateway: &GatewaySpec) {
        let asked = gateway.tls.frontend.as_ref().filter(|_| self.spec.protocol == ListenerProtocol::Https);
        let Some(asked) = asked.and_then(|asked| asked.at(self.spec.port)) else { return };
        if let FrontendValidationMode::Unknown(mode) = &asked.mode {
            let message = format!("spec.tls.frontend: mode {mode} is not known");
            self.unaccepted.get_or_insert(("UnsupportedValue", message));
        }
        let found = authorities(view, object, &asked.ca_certificate_refs);
        if found.pem.is_empty() {
            let why = found.unresolved.as_ref().map_or("none is named", |no| &no.1);
            let message = format!("spec.tls.frontend: there is no certificate of an authority: {why}");
            self.unaccepted.get_or_insert(("NoValidCACertificate", message));
        }
        if let Some((reason, message)) = found.unresolved {
            self.unresolved.get_or_insert((reason, format!("spec.tls.frontend: {message}")));
        }
        let optional = asked.mode == FrontendValidationMode::AllowInsecureFallback;
        self.clients = Some(ClientCertificates { authorities_pem: found.pem.into(), optional });
    }
}

/// The certificate that a reference leads to. ReferenceGrants are asked for the object that refers: those for a Gateway do not
/// hold for its ListenerSets.
fn certificate(view: View<'_>, owner: &Object, reference: &CertificateRef) -> Result<Certificate, No> {
    let invalid = |message: String| Err(("InvalidCertificateRef", message));
    if !(reference.group.is_empty() || &*reference.group == "core") || &*reference.kind != "Secret" {
        return invalid(format!("{} of the group {:?} holds no certificate", reference.kind, &*reference.group));
    }
    let namespace = reference.namespace.as_ref().unwrap_or(&owner.meta.namespace);
    let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&reference.name) };
    if name.namespace != owner.meta.namespace && !granted(view, owner, "", "Secret", &name) {
        let message =
            format!("no ReferenceGrant in namespace {namespace} lets {} refer to Secret {name}", owner.kind.name());
        return Err(("RefNotPermitted", message));
    }
    let Some(Kind::Secret(secret)) = view.object(KindName::Secret, &name).map(|object| &object.kind) else {
        return invalid(format!("Secret {name} does not exist"));
    };
    if &*secret.secret_type != TLS_SECRET {
        return invalid(format!("Secret {name} is of type {}, not {TLS_SECRET}", secret.secret_type));
    }
    match (secret.certificate(), secret.key()) {
        (Some(chain), Some(key)) if has_pem(chain, "CERTIFICATE") && has_pem(key, "PRIVATE KEY") => {
            Ok(Certificate { chain_pem: Arc::clone(chain), key_pem: Arc::clone(key) })
        }
        _ => invalid(format!("Secret {name} holds no sound tls.crt and tls.key")),
    }
}

/// What the Gateway shows to backends outside of the mesh (GEP-3155).
pub(super) fn client_certificate(
    view: View<'_>,
    gateway: &Object,
    reference: &CertificateRef,
) -> Result<Certificate, No> {
    certificate(view, gateway, reference).map_err(|(reason, message)| match reason {
        "InvalidCertificateRef" => ("InvalidClientCertificateRef", message),
        reason => (reason, message),
    })
}

/// Listeners from `first` on are of one object: among themselves all that are not distinct are in conflict; against those before
/// them the earlier wins.
fn mark_conflicts(all: &mut [Listener<'_>], first: usize) {
    let mut found: BTreeMap<usize, No> = BTreeMap::new();
    for (at, listener) in all.iter().enumerate().skip(first) {
        let others =
            all.iter().enumerate().filter(|(other, one)| *other != at && (*other >= first || one.conflict.is_none()));
        if let Some(no) =
            others.filter_map(|(_, other)| conflict(listener, other)).min_by_key(|no| no.0 != "ProtocolConflict")
        {
            found.insert(at, no);
        }
    }
    for (at, no) in found {
        all[at].conflict = Some(no);
    }
}

fn conflict(one: &Listener<'_>, other: &Listener<'_>) -> Option<No> {
    let (kind, other_kind) = (one.port_kind()?, other.port_kind()?);
    // Datagrams and bytes of one number do not meet.
    if one.spec.port != other.spec.port || (kind == PortKind::Udp) != (other_kind == PortKind::Udp) {
        return None;
    }
    // Who stands in another object is not named: it may be in a namespace that the reader may not see.
    let who = if one.owner.key() == other.owner.key() {
        format!("listener {}", other.spec.name)
    } else {
        "another listener of the Gateway".to_owned()
    };
    let port = one.spec.port;
    if kind != other_kind {
        let (ours, theirs) = (one.spec.protocol.as_str(), other.spec.protocol.as_str());
        return Some((
            "ProtocolConflict",
            format!("{who} has port {port} for {theirs}; it cannot speak {ours} as well"),
        ));
    }
    (matches!(kind, PortKind::Tcp | PortKind::Udp) || one.hostname == other.hostname).then(|| {
        let host = one.hostname.as_deref().map_or("every host".to_owned(), |host| format!("host {host}"));
        ("HostnameConflict", format!("{who} has {host} at port {port}, too"))
    })
}

/// Says where one certificate may be good for another listener's hosts, so that clients may reuse connections (GEP-3567).
fn mark_overlaps(all: &mut [Listener<'_>]) {
    let overlaps = |one: &Listener<'_>, other: &Listener<'_>| {
        let (one_host, other_host) = (one.hostname.as_deref(), other.hostname.as_deref());
        let meet = match (one_host, other_host) {
            (Some(one), Some(other)) => covers(one, other) || covers(other, one),
            _ => true,
        };
        one.spec.port == other.spec.port
            && meet
            && one.spec.protocol == ListenerProtocol::Https
            && other.spec.protocol == ListenerProtocol::Https
    };
    let found: Vec<bool> = (0..all.len())
        .map(|at| {
            all.iter().enumerate().any(|(other, one)| other != at && one.conflict.is_none() && overlaps(&all[at], one))
        })
        .collect();
    for (listener, overlaps) in all.iter_mut().zip(found) {
        if overlaps && listener.conflict.is_none() {
            let message = "its hosts and those of another listener intersect: requests that come by a connection for the other are answered with 421";
            listener.overlap = Some(message.to_owned());
        }
    }
}

/// Whether objects of a namespace are chosen.
pub(super) fn chooses(
    view: View<'_>,
    from: &FromNamespaces,
    selector: &LabelSelector,
    own: &str,
    namespace: &str,
) -> bool {
    match from {
        FromNamespaces::All => true,
        FromNamespaces::Same => own == namespace,
        FromNamespaces::Selector => {
            let name = ObjectName::new("", namespace);
            // Kubernetes labels every namespace with its name.
            let mut labels =
                view.object(KindName::Namespace, &name).map(|object| object.meta.labels.clone()).unwrap_or_default();
            labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
            selector.selects(&labels)
        }
        FromNamespaces::Nobody | FromNamespaces::Unknown(_) => false,
    }
}

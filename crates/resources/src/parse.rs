//! One file: documents, dispatch by kind, and everything that is wrong with each.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;

use crate::decode::{Cx, Decode};
use crate::diagnostic::{Diagnostic, Location};
use crate::node::{self, Document, Node, Value, clip};
use crate::object::{Kind, KindName, Object};
use crate::positions::Positions;
use crate::suggest::nearest;
use crate::types::*;
use crate::validate;

/// Largest file that is read. A ConfigMap, which is where fleets often keep such files, holds as much.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Most faults that are told of one file.
const MAX_FAULTS: usize = 1000;

/// Reads a file of manifests: any number of documents, YAML or JSON, `List`s among them. Says all faults at once, in the
/// order of the file. A document with an error yields no object (but see [`Object::failed_closed`]).
pub fn parse(file: &str, text: &str) -> (Vec<Object>, Vec<Diagnostic>) {
    let file: Arc<str> = file.into();
    let mut out = Vec::new();
    let mut objects = Vec::new();
    if let Some(text) = admit(&file, text, &mut out) {
        for document in node::read(&file, text, &mut out) {
            read_document(&file, &document, &mut objects, &mut out);
        }
    }
    bound(&file, &mut out);
    (objects, out)
}

/// Puts faults in order, and keeps a hopeless file from flooding whoever reads them.
fn bound(file: &Arc<str>, out: &mut Vec<Diagnostic>) {
    // Errors go first into the bound: as long as there is one, the file is not whole.
    if out.len() > MAX_FAULTS {
        let more = out.len() - MAX_FAULTS;
        out.sort_by_key(|d| (d.severity, d.line, d.column));
        out.truncate(MAX_FAULTS);
        let at = Location { file: Arc::clone(file), line: u32::MAX, column: 0 };
        let reason = format!("and {more} more faults");
        out.push(Diagnostic::new(out[0].severity, "V0003", &at, reason, "mend those above first".to_owned()));
    }
    out.sort_by_key(|d| (d.line, d.column));
    if let Some(last) = out.last_mut().filter(|last| last.line == u32::MAX) {
        last.line = 0;
    }
}

/// [`parse`] for bytes that may not even be text.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> (Vec<Object>, Vec<Diagnostic>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => (Vec::new(), vec![not_utf8(file, bytes, error.valid_up_to())]),
    }
}

/// Reads `fleet.yaml`: one document of kind Fleet. There is no fleet when any error was found.
pub fn parse_fleet(file: &str, text: &str) -> (Option<Fleet>, Vec<Diagnostic>) {
    let file: Arc<str> = file.into();
    let mut out = Vec::new();
    let mut fleet = None;
    if let Some(text) = admit(&file, text, &mut out) {
        let documents = node::read(&file, text, &mut out);
        let mut documents = documents.iter().filter(|d| !d.root.is_null());
        match documents.next() {
            None if out.is_empty() => out.push(Diagnostic::error(
                "V0006",
                &Location { file: Arc::clone(&file), line: 1, column: 1 },
                "there is no fleet in it",
                "begin with apiVersion: veer.dev/v1alpha1 and kind: Fleet",
            )),
            None => {}
            Some(document) => fleet = read_fleet(&file, document, &mut out),
        }
        for more in documents {
            let at = Location { file: Arc::clone(&file), line: more.at.0, column: more.at.1 };
            let reason = "a fleet is one document; this one is not read";
            out.push(Diagnostic::warning("V0007", &at, reason, "put manifests into the folders of the clusters"));
        }
    }
    bound(&file, &mut out);
    let whole = !out.iter().any(Diagnostic::is_error);
    (fleet.filter(|_| whole), out)
}

/// Text that is small enough, without its byte order mark.
fn admit<'t>(file: &Arc<str>, text: &'t str, out: &mut Vec<Diagnostic>) -> Option<&'t str> {
    if text.len() > MAX_FILE_BYTES {
        let at = Location { file: Arc::clone(file), line: 0, column: 0 };
        let reason = format!("is {} bytes long; at most {MAX_FILE_BYTES} are read", text.len());
        out.push(Diagnostic::error("V0003", &at, reason, "split it into several files"));
        return None;
    }
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn not_utf8(file: &str, bytes: &[u8], valid: usize) -> Diagnostic {
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let cut = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let at = Location { file: file.into(), line: cut(line), column: cut(column) };
    Diagnostic::error("V0002", &at, "is not UTF-8 from here on", "save the file as UTF-8 text")
}

fn read_document(file: &Arc<str>, document: &Document, objects: &mut Vec<Object>, out: &mut Vec<Diagnostic>) {
    let root = &document.root;
    if root.is_null() {
        return;
    }
    let is_list = root.get("kind").and_then(Node::text).is_some_and(|kind| &**kind == "List");
    match root.get("items") {
        Some(Node { value: Value::List(items), .. }) if is_list => {
            for item in items {
                objects.extend(read_object(file, item, item.at, document.broken, out));
            }
        }
        _ => objects.extend(read_object(file, root, document.at, document.broken, out)),
    }
}

/// `apiVersion` and `kind`, the place of `kind`, or a report.
fn head<'n>(cx: &mut Cx<'_>, root: &'n Node) -> Option<(&'n str, &'n str, node::Pos)> {
    let Value::Map(_) = root.value else {
        let reason = format!("the document is {}; an object is needed", root.describe());
        cx.error("V0006", root.at, reason, "begin with apiVersion, kind and metadata");
        return None;
    };
    let mut text = |key: &str| match root.get(key) {
        None => {
            cx.missing(root, key);
            None
        }
        Some(node) => {
            cx.field::<Arc<str>>(key, node)?;
            node.text().map(|text| (&**text, node.at))
        }
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let ((version, _), (kind, at)) = (version?, kind?);
    Some((version, kind, at))
}

fn read_object(file: &Arc<str>, root: &Node, at: node::Pos, broken: bool, out: &mut Vec<Diagnostic>) -> Option<Object> {
    let before = out.len();
    let mut cx = Cx::new(file, out, false);
    let (version, kind, kind_at) = match head(&mut cx, root) {
        Some(head) => head,
        // What is missing at the end of a broken document was reported by its syntax error.
        None if broken => {
            out.truncate(before);
            return None;
        }
        None => return None,
    };
    let kind = known_kind(&mut cx, version, kind, kind_at)?;
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    if group == kind.group() && !kind.versions().contains(&number) {
        let at = root.get("apiVersion").map_or(root.at, |node| node.at);
        let reason = format!("apiVersion: {kind} has no version {:?}", clip(number));
        cx.error("V0008", at, reason, format!("write {}", kind.api_version()));
    }
    let object = read_kind(file, root, at, kind, out);
    let whole = !broken && !out[before..].iter().any(Diagnostic::is_error);
    match object {
        Some(object) if whole => Some(object),
        object => {
            if broken {
                // Only the syntax error counts; what is missing behind it is no fault of its own.
                out.truncate(before);
            }
            fail_closed(file, root, at, kind, object)
        }
    }
}

fn known_kind(cx: &mut Cx<'_>, version: &str, kind: &str, at: node::Pos) -> Option<KindName> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let mut warn = |reason: String, mend: String| {
        let at = Location { file: Arc::clone(cx.file), line: at.0, column: at.1 };
        cx.out.push(Diagnostic::warning("V0007", &at, reason, mend));
    };
    match KindName::ALL.into_iter().find(|k| k.as_str() == kind) {
        Some(known) if known.group() == group => Some(known),
        Some(known) => {
            warn(
                format!(
                    "{kind} of the group {group:?} is not a kind that Veer reads; the document is skipped",
                    group = clip(group)
                ),
                format!("if {kind} of the mesh is meant, write apiVersion: {}", known.api_version()),
            );
            None
        }
        None => {
            let mend = if kind == "Fleet" {
                "a fleet stands in fleet.yaml, beside the folders of its clusters".to_owned()
            } else {
                match nearest(kind, KindName::ALL.into_iter().map(KindName::as_str)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "keep it elsewhere if it is not for Veer".to_owned(),
                }
            };
            warn(format!("kind {:?} is not one that Veer reads; the document is skipped", clip(kind)), mend);
            None
        }
    }
}

fn read_kind(file: &Arc<str>, root: &Node, at: node::Pos, kind: KindName, out: &mut Vec<Diagnostic>) -> Option<Object> {
    let strict = kind == KindName::AuthorizationPolicy;
    let mut cx = Cx::new(file, out, strict);
    let mut known = vec!["apiVersion", "kind", "metadata", "status"];
    known.extend(match kind {
        KindName::EndpointSlice => ["addressType", "endpoints", "ports"].as_slice(),
        KindName::Secret => ["type", "data", "stringData", "immutable"].as_slice(),
        KindName::ConfigMap => ["data", "binaryData", "immutable"].as_slice(),
        _ => ["spec"].as_slice(),
    });
    for (key, _) in cx.entries(root)? {
        if !known.contains(&&*key.text) {
            cx.unknown_field(key, &known);
        }
    }
    let meta = match root.get("metadata").filter(|node| !node.is_null()) {
        Some(node) => cx.field::<ObjectMeta>("metadata", node),
        None => {
            cx.missing(root, "metadata");
            None
        }
    };
    let typed = match kind {
        KindName::Namespace => Some(Kind::Namespace),
        KindName::EndpointSlice => read_slice(&mut cx, root),
        KindName::Service => spec(&mut cx, root).map(Kind::Service),
        KindName::ServiceExport => optional_spec(&mut cx, root).map(Kind::ServiceExport),
        KindName::ServiceImport => optional_spec(&mut cx, root).map(Kind::ServiceImport),
        KindName::HttpRoute => spec(&mut cx, root).map(Kind::HttpRoute),
        KindName::GrpcRoute => spec(&mut cx, root).map(Kind::GrpcRoute),
        KindName::TcpRoute => spec(&mut cx, root).map(Kind::TcpRoute),
        KindName::TlsRoute => spec(&mut cx, root).map(Kind::TlsRoute),
        KindName::UdpRoute => spec(&mut cx, root).map(Kind::UdpRoute),
        KindName::Gateway => spec(&mut cx, root).map(Kind::Gateway),
        KindName::GatewayClass => spec(&mut cx, root).map(Kind::GatewayClass),
        KindName::ListenerSet => spec(&mut cx, root).map(Kind::ListenerSet),
        KindName::Secret => read_secret(&mut cx, root),
        KindName::ConfigMap => Some(read_config_map(root)),
        KindName::ClusterTrustBundle => spec(&mut cx, root).map(Kind::ClusterTrustBundle),
        KindName::ReferenceGrant => spec(&mut cx, root).map(Kind::ReferenceGrant),
        KindName::Workload => spec(&mut cx, root).map(Kind::Workload),
        KindName::Link => spec(&mut cx, root).map(Kind::Link),
        KindName::TrafficPolicy => spec(&mut cx, root).map(Kind::TrafficPolicy),
        KindName::BackendTrafficPolicy => spec(&mut cx, root).map(Kind::BackendTrafficPolicy),
        KindName::BackendTlsPolicy => spec(&mut cx, root).map(Kind::BackendTlsPolicy),
        KindName::XBackend => spec(&mut cx, root).map(Kind::XBackend),
        KindName::AuthorizationPolicy => optional_spec(&mut cx, root).map(Kind::AuthorizationPolicy),
    };
    let failed = std::mem::take(&mut cx.failed);
    let mut meta = meta?;
    let location = Location { file: Arc::clone(file), line: at.0, column: at.1 };
    let positions = Positions::of(root);
    validate::scope(kind, &mut meta, &location, &positions, out);
    let written = kind.has_status().then(|| Arc::new(root.clone()));
    let object = Object { meta: Arc::new(meta), kind: typed?, at: location, failed_closed: false, positions, written };
    validate::object(&object, &failed, out);
    Some(object)
}

fn spec<T: Decode>(cx: &mut Cx<'_>, root: &Node) -> Option<Arc<T>> {
    match root.get("spec").filter(|node| !node.is_null()) {
        Some(node) => cx.field("spec", node).map(Arc::new),
        None => {
            cx.missing(root, "spec");
            None
        }
    }
}

/// For kinds that say something by being there.
fn optional_spec<T: Decode>(cx: &mut Cx<'_>, root: &Node) -> Option<Arc<T>> {
    match root.get("spec").filter(|node| !node.is_null()) {
        Some(node) => cx.field("spec", node).map(Arc::new),
        None => cx.field("spec", &Node::empty_map(root.at)).map(Arc::new),
    }
}

/// An EndpointSlice keeps its fields beside `metadata`.
fn read_slice(cx: &mut Cx<'_>, root: &Node) -> Option<Kind> {
    let Value::Map(entries) = &root.value else { return None };
    let own = |key: &str| matches!(key, "addressType" | "endpoints" | "ports");
    let fields = entries.iter().filter(|(key, _)| own(&key.text)).cloned().collect();
    let slice = EndpointSlice::decode(&Node { at: root.at, value: Value::Map(fields) }, cx)?;
    Some(Kind::EndpointSlice(Arc::new(slice)))
}

/// Of a ConfigMap only the certificates of authorities are kept.
fn read_config_map(root: &Node) -> Kind {
    let authorities = root.get("data").and_then(|data| data.get("ca.crt")).and_then(Node::text).cloned();
    Kind::ConfigMap(Arc::new(ConfigMap { authorities }))
}

/// A Secret keeps its fields beside `metadata`. Of Secrets that hold no certificate of ours only `ca.crt` is looked at, so that no
/// file of somebody else's secrets is kept in memory, or refused.
fn read_secret(cx: &mut Cx<'_>, root: &Node) -> Option<Kind> {
    let secret_type = root.get("type").and_then(Node::text).cloned().unwrap_or_else(|| "Opaque".into());
    let mut secret = Secret { secret_type, data: BTreeMap::new() };
    let is_ours = &*secret.secret_type == TLS_SECRET;
    let wanted = |key: &str| is_ours || key == "ca.crt";
    let section = |key: &str| match root.get(key).map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    for (key, node) in section("data").iter().filter(|(key, _)| wanted(&key.text)) {
        // The value itself is never told.
        let Some(encoded) = node.text() else { continue };
        let encoded: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok();
        match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => drop(secret.data.insert(Arc::clone(&key.text), text.into())),
            None => {
                let reason = format!("data.{}: is not base64 of a text", clip(&key.text));
                cx.error("V0045", node.at, reason, "encode the file with `base64`, or write it under stringData");
            }
        }
    }
    for (key, node) in section("stringData").iter().filter(|(key, _)| wanted(&key.text)) {
        if let Some(text) = node.text() {
            secret.data.insert(Arc::clone(&key.text), Arc::clone(text));
        }
    }
    Some(Kind::Secret(Arc::new(secret)))
}

/// What stands in for a document with errors where leaving it out would open a door.
fn fail_closed(file: &Arc<str>, root: &Node, at: node::Pos, kind: KindName, object: Option<Object>) -> Option<Object> {
    let opens = [KindName::AuthorizationPolicy, KindName::Namespace, KindName::BackendTlsPolicy];
    if !opens.contains(&kind) {
        return None;
    }
    // Read again in silence: what is wrong was said already.
    let mut silence = Vec::new();
    let mut cx = Cx::new(file, &mut silence, true);
    let metadata = root.get("metadata")?;
    let text = |key: &str| metadata.get(key).and_then(Node::text);
    let name = text("name")?;
    let namespace = match kind.is_namespaced() {
        true => text("namespace").map_or(DEFAULT_NAMESPACE, AsRef::as_ref),
        false => "",
    };
    let mut meta = ObjectMeta::named(namespace, name);
    let (meta, kind) = match kind {
        KindName::Namespace => {
            let written = metadata.get("annotations").and_then(|all| all.get(MTLS));
            let strict = written.is_some_and(|node| node.text().is_none_or(|text| &**text != "permissive"));
            // A namespace that says nothing about mTLS opens nothing by being absent.
            if !strict {
                return None;
            }
            meta.annotations.insert(MTLS.into(), "strict".into());
            (Arc::new(meta), Kind::Namespace)
        }
        KindName::BackendTlsPolicy => {
            let targets = root.get("spec").and_then(|spec| spec.get("targetRefs"));
            let targets = targets.and_then(|node| Vec::<SectionTarget>::decode(node, &mut cx))?;
            (Arc::new(meta), Kind::BackendTlsPolicy(Arc::new(BackendTlsPolicySpec::broken(targets))))
        }
        _ => {
            let before = cx.out.len();
            let selector = root.get("spec").and_then(|spec| spec.get("selector"));
            let selector = selector.and_then(|node| WorkloadSelector::decode(node, &mut cx));
            // A selector that is only half understood may select too little.
            let selector = selector.filter(|_| cx.out.len() == before);
            let policy = Kind::AuthorizationPolicy(Arc::new(AuthorizationPolicySpec::nobody(selector)));
            (object.map_or_else(|| Arc::new(meta), |object| object.meta), policy)
        }
    };
    let at = Location { file: Arc::clone(file), line: at.0, column: at.1 };
    Some(Object { meta, kind, at, failed_closed: true, positions: Positions::of(root), written: None })
}

fn read_fleet(file: &Arc<str>, document: &Document, out: &mut Vec<Diagnostic>) -> Option<Fleet> {
    let root = &document.root;
    let mut cx = Cx::new(file, out, false);
    let (version, kind, kind_at) = head(&mut cx, root)?;
    if kind != "Fleet" {
        let reason = format!("kind: {:?} is not a fleet", clip(kind));
        cx.error("V0006", kind_at, reason, "write kind: Fleet; manifests belong into the folders of the clusters");
        return None;
    }
    if version != "veer.dev/v1alpha1" {
        let at = root.get("apiVersion").map_or(root.at, |node| node.at);
        let reason = format!("apiVersion: Fleet has no version {:?}", clip(version));
        cx.error("V0008", at, reason, "write veer.dev/v1alpha1");
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    for (key, _) in cx.entries(root)? {
        if !known.contains(&&*key.text) {
            cx.unknown_field(key, &known);
        }
    }
    let fleet = spec::<Fleet>(&mut cx, root)?;
    let failed = std::mem::take(&mut cx.failed);
    validate::fleet::check(&fleet, &Positions::of(root), &failed, file, out);
    Arc::into_inner(fleet)
}

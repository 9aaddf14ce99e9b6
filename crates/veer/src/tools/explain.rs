//! `veer explain request`: what would become of a request that nobody sends, step by step, and who wrote what acts on it.
//!
//! The steps are those of the proxy's own request path ([`veer_proxy::explain`]). Without `--live` they are taken over the folder's
//! manifests, with nothing running; with it, the caller's running proxy takes them with what it knows now.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Uri;
use serde::Serialize;
use tokio::time::Instant;
use veer_balance::{Clusters, ServiceBalance};
use veer_core::route::RouteKind;
use veer_core::{Endpoints, Inbound, ObjectName, ServiceHost};
use veer_proxy::explain::{ActingRule, Explanation, Knows, Question, ServingEndpoint, admission, explain};
use veer_proxy::knowledge::{Missing, ServiceView};
use veer_resources::KindName;

use super::explain_text::text;
use super::folder::{Cluster, read_clusters};
use super::{Format, Target};
use crate::api;

/// `veer explain`
#[derive(Debug, Args)]
pub struct Explain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What would become of a request: rule, backends, copies, limits and policies, and who wrote each
    Request(Request),
}

/// `veer explain request`
#[derive(Debug, Args)]
struct Request {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
    /// The calling Workload: NAME, NAMESPACE/NAME or CLUSTER/NAMESPACE/NAME
    #[arg(long, value_name = "WORKLOAD")]
    from: String,
    /// What it asks for, like http://catalog/items?page=2
    #[arg(long, value_name = "URL")]
    to: Uri,
    /// Method
    #[arg(short = 'X', long = "method", default_value = "GET")]
    method: http::Method,
    /// A header field, like "user: david"; may stand several times
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(String, String)>,
    /// Ask the caller's running proxy, with the health and load that it sees now
    #[arg(long)]
    live: bool,
}

/// The answer of the tool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The cluster of the caller.
    pub cluster: String,
    /// The caller.
    pub from: ObjectName,
    /// The request.
    pub request: Question,
    /// What becomes of it.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// Where the rule and the policies are written, by their kind and name.
    pub written: Vec<Written>,
    /// What to do when it reaches nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Whether a running proxy said it.
    pub live: bool,
}

/// Something that acts, and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Kind and name, as they stand in the explanation.
    pub what: String,
    /// Whose manifests hold it.
    pub cluster: String,
    /// `file:line`.
    pub at: String,
}

impl Explain {
    /// Explains; `Ok(false)` when the request reaches nobody.
    ///
    /// # Errors
    /// When there is no such caller, the URL is none that the mesh serves, or nothing can be asked.
    pub async fn run(self) -> anyhow::Result<bool> {
        let What::Request(request) = self.what;
        request.run().await
    }
}

impl Request {
    async fn run(self) -> anyhow::Result<bool> {
        let folder = &self.target.fleet;
        anyhow::ensure!(
            folder.is_dir(),
            "{} is not a folder: name the one that the manifests are in with --fleet",
            folder.display()
        );
        let clusters = read_clusters(folder)?;
        let (cluster, inbound) = self.caller(&clusters)?;
        let question = question(&self.to, &self.method, &self.headers)?;
        let mut explanation = if self.live {
            self.ask(cluster, &inbound.workload, &question).await?
        } else {
            let knows = OnPaper { cluster, inbound };
            explain(&knows, &question).await
        };
        admissions(&clusters, inbound, &mut explanation);
        let written = written(&clusters, cluster, &explanation);
        let mend = mend(&clusters, cluster, inbound, &question, &explanation);
        let explained = Explained {
            cluster: cluster.config.name.to_string(),
            from: inbound.workload.clone(),
            request: question,
            explanation,
            written,
            mend,
            live: self.live,
        };
        let reaches = reaches(&explained.explanation);
        self.format.print(&explained, text)?;
        Ok(reaches)
    }

    /// The workload that asks, and its cluster.
    fn caller<'c>(&self, clusters: &'c [Cluster]) -> anyhow::Result<(&'c Cluster, &'c Inbound)> {
        let parts: Vec<&str> = self.from.split('/').collect();
        let (cluster, namespace, name) = match parts[..] {
            [name] => (None, None, name),
            [namespace, name] => (None, Some(namespace), name),
            [cluster, namespace, name] => (Some(cluster), Some(namespace), name),
            _ => anyhow::bail!("--from {}: write NAME, NAMESPACE/NAME or CLUSTER/NAMESPACE/NAME", self.from),
        };
        let cluster = cluster.or(self.target.cluster.as_deref());
        if let Some(wanted) = cluster {
            let known: Vec<_> = clusters.iter().map(|cluster| cluster.config.name.as_str()).collect();
            anyhow::ensure!(known.contains(&wanted), "no cluster {wanted:?}; there are {}", known.join(", "));
        }
        let all = clusters.iter().flat_map(|cluster| cluster.meaning.inbound.values().map(move |i| (cluster, &**i)));
        let here = all.filter(|(of, _)| cluster.is_none_or(|name| of.config.name.as_str() == name));
        let here: Vec<_> = here.collect();
        let found = here.iter().filter(|(_, inbound)| {
            let ObjectName { namespace: own, name: own_name } = &inbound.workload;
            **own_name == *name && namespace.is_none_or(|namespace| **own == *namespace)
        });
        let found: Vec<_> = found.collect();
        let told = |(cluster, inbound): &(&Cluster, &Inbound)| format!("{}/{}", cluster.config.name, inbound.workload);
        match found[..] {
            [one] => Ok(*one),
            [] => anyhow::bail!(
                "no Workload {:?}; there are {}",
                self.from,
                here.iter().map(told).collect::<Vec<_>>().join(", ")
            ),
            _ => anyhow::bail!(
                "--from {} means several; write one of {}",
                self.from,
                found.iter().map(|one| told(one)).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// The running proxy's answer.
    async fn ask(&self, cluster: &Cluster, workload: &ObjectName, question: &Question) -> anyhow::Result<Explanation> {
        let name = cluster.config.name.as_str();
        let asked = self.target.asked()?.into_iter().find(|asked| self.target.api.is_some() || asked.name == name);
        let asked = asked.with_context(|| format!("cluster {name} is not part of the running fleet"))?;
        let proxies = api::admin_addresses(asked.api).await?;
        let (_, admin) = proxies.into_iter().find(|(proxy, _)| *proxy == workload.to_string()).with_context(|| {
            format!("no running proxy of {workload} reports to {name}; `veer status` tells why, without --live manifests alone are asked")
        })?;
        api::get_json(admin, &format!("/explain?{}", question.to_query())).await
    }
}

/// A header field as curl writes it.
fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as \"name: value\"")?;
    if name.trim().is_empty() {
        return Err("the name before the colon is empty".to_owned());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn question(to: &Uri, method: &http::Method, headers: &[(String, String)]) -> anyhow::Result<Question> {
    match to.scheme_str() {
        None | Some("http") => {}
        Some("https") => anyhow::bail!(
            "--to {to}: the mesh does not look into TLS of the application; ask by http, as applications in the mesh do"
        ),
        Some(scheme) => anyhow::bail!("--to {to}: {scheme} is not asked by requests; write http://host/path"),
    }
    let authority = to.authority().with_context(|| format!("--to {to}: names no host; write http://host/path"))?;
    Ok(Question {
        method: method.to_string(),
        authority: authority.to_string(),
        target: to.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: headers.to_vec(),
    })
}

fn reaches(explanation: &Explanation) -> bool {
    let answered = explanation.answer.as_ref().is_some_and(|answer| answer.status >= 400);
    let usable = explanation.backends.iter().any(|backend| {
        let copies = || backend.clusters.iter().flat_map(|cluster| &cluster.endpoints);
        let serves = |copy: &ServingEndpoint| {
            copy.share > 0.0 && copy.admits.as_ref().is_none_or(|admission| admission.admitted)
        };
        backend.share > 0.0 && backend.answer.is_none() && copies().any(serves)
    });
    usable || (!answered && explanation.backends.is_empty())
}

/// What to do about a request that reaches nobody.
fn mend(
    clusters: &[Cluster],
    own: &Cluster,
    caller: &Inbound,
    question: &Question,
    explanation: &Explanation,
) -> Option<String> {
    if reaches(explanation) {
        return None;
    }
    let own_name = &own.config.name;
    let host = question.authority.split(':').next().unwrap_or_default();
    let flag = explanation.answer.as_ref().map_or("", |answer| answer.flag.as_str());
    Some(match (&explanation.service, flag) {
        (None, "NC") => {
            let whole = ServiceHost::complete(host, &caller.workload.namespace);
            let object = whole.as_ref().and_then(ServiceHost::object);
            let has = |cluster: &&Cluster| {
                let mut services = cluster.meaning.services.values();
                cluster.config.name != *own_name && services.any(|service| service.host.object() == object)
            };
            match clusters.iter().find(has).filter(|_| object.is_some()) {
                Some(peer) => format!(
                    "{} has a Service of this name; export it to {own_name} there (ServiceExport) and ask for NAME.NAMESPACE.svc.clusterset.local",
                    peer.config.name
                ),
                None => format!("write the host of a Service that {own_name} knows: {}", hosts(own)),
            }
        }
        (Some(service), "NC") => format!("add the port to the Service behind {}, or ask for one that it has", service.host),
        (_, "NR") => "add a rule without `matches`, or one that matches; `veer routes HOST` shows when each acts".to_owned(),
        (_, "CF") => "`veer lint` shows the fault of the route with its place".to_owned(),
        _ if explanation.backends.iter().any(|backend| !backend.clusters.is_empty()) => {
            "no copy lets it in or can serve: see what each copy says above".to_owned()
        }
        _ => "give a backend of the rule a weight, and a Service that Workloads serve; `veer lint` tells which are missing".to_owned(),
    })
}

fn hosts(own: &Cluster) -> String {
    let mut hosts: Vec<_> = own.meaning.endpoints.keys().map(ServiceHost::as_str).collect();
    let more = hosts.len().saturating_sub(MOST_HOSTS);
    hosts.truncate(MOST_HOSTS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", hosts.join(", "))
}

/// Hosts that are told when one is not known.
const MOST_HOSTS: usize = 8;

/// What a proxy would know that has just started, before anything was sent: all that is written counts as healthy.
struct OnPaper<'c> {
    cluster: &'c Cluster,
    inbound: &'c Inbound,
}

impl Knows for OnPaper<'_> {
    fn workload(&self) -> &ObjectName {
        &self.inbound.workload
    }

    async fn service(&self, name: &str) -> Result<Rc<ServiceView>, Missing> {
        let service = self.cluster.meaning.services.get(name).ok_or(Missing::Absent)?;
        Ok(Rc::new(ServiceView::compile(service, &self.inbound.workload.namespace)))
    }

    async fn endpoints(&self, host: &ServiceHost) -> Result<(Arc<Endpoints>, Arc<ServiceBalance>), Missing> {
        let endpoints = self.cluster.meaning.endpoints.get(host).ok_or(Missing::Absent)?;
        let now = Instant::now();
        let clusters = Clusters::new(&self.cluster.config.name, now);
        Ok((Arc::clone(endpoints), ServiceBalance::new(endpoints, &clusters, now)))
    }
}

/// Asks the proxies of the copies, as their manifests have it, whether they would let the request in.
fn admissions(clusters: &[Cluster], caller: &Inbound, explanation: &mut Explanation) {
    for backend in &mut explanation.backends {
        let Some(sent) = backend.sent.clone() else { continue };
        for serving in &mut backend.clusters {
            let Some(cluster) = clusters.iter().find(|cluster| cluster.config.name == serving.cluster) else {
                continue;
            };
            for copy in &mut serving.endpoints {
                if let (Some(inbound), Some(port)) = (cluster.meaning.inbound.get(&copy.workload), copy.port) {
                    copy.admits = Some(admission(inbound, Some(&caller.identity), port, &sent));
                }
            }
        }
    }
}

/// The kind and the name of a rule's object, and its rule, as they are shown.
pub fn rule_name(rule: &ActingRule) -> String {
    let kind = if rule.kind == RouteKind::Grpc { "GRPCRoute" } else { "HTTPRoute" };
    format!("{kind} {}", rule.route)
}

fn written(clusters: &[Cluster], own: &Cluster, explanation: &Explanation) -> Vec<Written> {
    let place = |cluster: &Cluster, what: &str, path: &str| {
        let object =
            cluster.objects.iter().find(|object| format!("{} {}", object.kind.name(), object.name()) == what)?;
        let at = object.locate(path);
        let cluster = cluster.config.name.to_string();
        Some(Written { what: what.to_owned(), cluster, at: format!("{}:{}", at.file, at.line) })
    };
    let mut all = Vec::new();
    if let Some(rule) = &explanation.rule {
        let of = rule.owner.as_ref().and_then(|owner| clusters.iter().find(|cluster| cluster.config.name == *owner));
        all.extend(place(of.unwrap_or(own), &rule_name(rule), &format!("spec.rules[{}]", rule.index)));
    }
    for backend in &explanation.backends {
        let authors = backend.policy_by.iter().filter_map(|by| {
            let (what, owner) = by.split_once(" of ").unwrap_or((by, ""));
            let of = clusters.iter().find(|cluster| cluster.config.name.as_str() == owner);
            place(if owner.is_empty() { own } else { of? }, what, "spec")
        });
        all.extend(authors);
        for serving in &backend.clusters {
            let Some(cluster) = clusters.iter().find(|cluster| cluster.config.name == serving.cluster) else {
                continue;
            };
            let policies = serving.endpoints.iter().filter_map(|copy| copy.admits.as_ref()?.policy.as_ref());
            let what = policies.map(|policy| format!("{} {policy}", KindName::AuthorizationPolicy));
            all.extend(what.filter_map(|what| place(cluster, &what, "spec")));
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|written| seen.insert((written.what.clone(), written.at.clone())));
    all
}

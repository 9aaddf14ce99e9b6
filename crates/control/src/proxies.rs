//! The proxies and gateways that are, or lately were, connected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use veer_core::ObjectName;

use crate::api::{ProxyCounts, ProxyStatus};
use crate::tokens::Subject;

/// A proxy without a session is shown this long.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The registry. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    entries: Mutex<BTreeMap<Subject, Entry>>,
    /// Told when a proxy acknowledged what it serves as a Gateway.
    served: watch::Sender<()>,
}

#[derive(Debug)]
struct Entry {
    sessions: usize,
    admin: Option<SocketAddr>,
    version: String,
    generation: u64,
    refused: Option<String>,
    heard: Instant,
    ingress: IngressEntry,
}

/// What the proxy of a Gateway said of the listeners that it serves.
#[derive(Debug, Default)]
struct IngressEntry {
    /// It has asked for them.
    asked: bool,
    /// Whether it refused the last that it was sent.
    refused: bool,
    /// Generation up to which it has applied them.
    generation: u64,
}

/// One session of a proxy; it is over when this drops.
#[derive(Debug)]
pub struct ProxySession {
    registry: Proxies,
    subject: Subject,
}

/// What a proxy reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Where its admin listener is.
    pub admin: Option<SocketAddr>,
    /// Version of the program.
    pub version: String,
    /// Generation that it acknowledged.
    pub generation: u64,
}

impl Proxies {
    /// A session begins.
    pub fn connected(&self, subject: Subject) -> ProxySession {
        let now = Instant::now();
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.sessions > 0 || now - entry.heard < REMEMBERED);
        let entry = entries.entry(subject.clone()).or_insert_with(|| Entry::new(now));
        entry.sessions += 1;
        entry.heard = now;
        drop(entries);
        ProxySession { registry: self.clone(), subject }
    }

    /// A proxy reported. Reports of those without a session are dropped: the registry holds only the authenticated.
    pub fn report(&self, subject: &Subject, report: Report) {
        if let Some(entry) = self.entries().get_mut(subject) {
            entry.heard = Instant::now();
            entry.admin = report.admin.or(entry.admin);
            entry.version = report.version;
            entry.generation = entry.generation.max(report.generation);
        }
    }

    /// A proxy has applied what it was sent up to this generation.
    pub fn accepted(&self, subject: &Subject, generation: u64) {
        if let Some(entry) = self.entries().get_mut(subject) {
            entry.heard = Instant::now();
            entry.generation = entry.generation.max(generation);
            entry.refused = None;
        }
    }

    /// The proxy of a Gateway was shown what it serves: from now on it answers for it.
    pub fn asked_ingress(&self, subject: &Subject) {
        if let Some(entry) = self.entries().get_mut(subject) {
            entry.ingress.asked = true;
        }
    }

    /// It has applied that up to this generation (`Ok`), or refused it.
    pub fn answered_ingress(&self, subject: &Subject, generation: Result<u64, ()>) {
        self.ingress(subject, |ingress| match generation {
            Ok(generation) => {
                ingress.refused = false;
                ingress.generation = ingress.generation.max(generation);
            }
            Err(()) => ingress.refused = true,
        });
    }

    /// A proxy was told everything up to this generation and has answered for it, be it that nothing concerned it.
    pub fn caught_up_ingress(&self, subject: &Subject, generation: u64) {
        self.ingress(subject, |ingress| {
            if ingress.asked && !ingress.refused {
                ingress.generation = ingress.generation.max(generation);
            }
        });
    }

    /// Whether a Gateway's proxy has acknowledged what it serves since this generation.
    pub fn serves_since(&self, proxy: &ObjectName, generation: u64) -> bool {
        let entries = self.entries();
        entries.get(&Subject::Workload(proxy.clone())).is_some_and(|entry| entry.ingress.generation >= generation)
    }

    /// Changes whenever [`Self::serves_since`] may.
    pub fn served(&self) -> watch::Receiver<()> {
        self.0.served.subscribe()
    }

    fn ingress(&self, subject: &Subject, change: impl FnOnce(&mut IngressEntry)) {
        let changed = self.entries().get_mut(subject).is_some_and(|entry| {
            let before = entry.ingress.generation;
            change(&mut entry.ingress);
            entry.ingress.generation != before
        });
        if changed {
            self.0.served.send_replace(());
        }
    }

    /// A proxy refused something that it was sent.
    pub fn refused(&self, subject: &Subject, reason: &str) {
        if let Some(entry) = self.entries().get_mut(subject) {
            entry.heard = Instant::now();
            entry.refused = Some(reason.chars().take(1000).collect());
        }
    }

    /// Everything known, by subject.
    pub fn list(&self) -> Vec<ProxyStatus> {
        let now = Instant::now();
        self.entries()
            .iter()
            .map(|(subject, entry)| {
                let (kind, name) = match subject {
                    Subject::Workload(name) => ("workload", name.to_string()),
                    Subject::Gateway(name) => ("gateway", name.clone()),
                };
                ProxyStatus {
                    name,
                    kind: kind.to_owned(),
                    admin: entry.admin,
                    version: entry.version.clone(),
                    connected: entry.sessions > 0,
                    generation: entry.generation,
                    refused: entry.refused.clone(),
                    age_seconds: (now - entry.heard).as_secs_f64(),
                }
            })
            .collect()
    }

    /// How many there are.
    pub fn counts(&self) -> ProxyCounts {
        self.entries().values().fold(ProxyCounts::default(), |mut counts, entry| {
            match entry.sessions {
                0 => counts.lost += 1,
                _ => {
                    counts.connected += 1;
                    counts.refusing += usize::from(entry.refused.is_some());
                }
            }
            counts
        })
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Subject, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            sessions: 0,
            admin: None,
            version: String::new(),
            generation: 0,
            refused: None,
            heard: now,
            ingress: IngressEntry::default(),
        }
    }
}

impl Drop for ProxySession {
    fn drop(&mut self) {
        if let Some(entry) = self.registry.entries().get_mut(&self.subject) {
            entry.sessions = entry.sessions.saturating_sub(1);
            entry.heard = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateways_proxy_serves_what_it_has_acknowledged() {
        let proxies = Proxies::default();
        let name = ObjectName::new("shop", "web-gateway");
        let subject = Subject::Workload(name.clone());
        let _session = proxies.connected(subject.clone());
        let served = proxies.served();
        proxies.caught_up_ingress(&subject, 5);
        assert!(!proxies.serves_since(&name, 1), "it has not asked for it");
        proxies.asked_ingress(&subject);
        assert!(!proxies.serves_since(&name, 1), "it has not answered");
        proxies.answered_ingress(&subject, Err(()));
        proxies.caught_up_ingress(&subject, 6);
        assert!(!proxies.serves_since(&name, 1) && !served.has_changed().unwrap(), "it has refused it");
        proxies.answered_ingress(&subject, Ok(7));
        assert!(proxies.serves_since(&name, 7) && !proxies.serves_since(&name, 8) && served.has_changed().unwrap());
        proxies.caught_up_ingress(&subject, 9);
        assert!(proxies.serves_since(&name, 9), "a proxy that comes back with what it has is sent nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_connected_while_it_has_a_session() {
        let proxies = Proxies::default();
        let web = Subject::Workload(ObjectName::new("shop", "web"));
        proxies.report(&web, Report::default());
        assert!(proxies.list().is_empty(), "a report without a session");
        let first = proxies.connected(web.clone());
        let second = proxies.connected(web.clone());
        proxies.report(&web, Report { generation: 3, version: "1".into(), admin: None });
        proxies.refused(&web, "Service cart: no ports");
        assert_eq!(proxies.counts(), ProxyCounts { connected: 1, lost: 0, refusing: 1 });
        proxies.accepted(&web, 4);
        drop(first);
        assert!(proxies.list()[0].connected, "one session is left");
        drop(second);
        assert_eq!(proxies.counts(), ProxyCounts { connected: 0, lost: 1, refusing: 0 });
        tokio::time::advance(REMEMBERED).await;
        let _other = proxies.connected(Subject::Gateway("g".into()));
        assert_eq!(proxies.list().len(), 1, "the lost one is forgotten");
    }
}

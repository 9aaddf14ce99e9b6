//! The process that is a cluster: keeps its control plane, gateways, proxies and applications running, as the manifests say.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use veer_compile::IngressProxy;
use veer_resources::types::{ACCESS_LOG, CAPTURE, EnvVar, PROXY, RestartPolicy, RunSpec, WorkloadSpec};
use veer_resources::{Kind, Object};

use super::child::{Command, Places, Restart};
use super::own_program;
use super::plan::{ADMIN_PORT, ClusterPlan, GatewayPlan, OUTBOUND_PORT};
use super::units::{Unit, Units};

/// Runs the cluster until `stop` resolves; then everything is stopped gently.
///
/// # Errors
/// When the cluster file cannot be read or its folders cannot be written to.
pub async fn run(file: &Path, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let plan = ClusterPlan::read(file).with_context(|| format!("reading {}", file.display()))?;
    plan.make_folders()?;
    let places = Places { logs: plan.logs(), held: plan.held() };
    let mut units = Units::new(places, plan.run_file());
    let program = own_program()?.display().to_string();
    let mut snapshots = veer_source::watch(plan.manifests.clone());
    tokio::pin!(stop);
    loop {
        let objects = snapshots.borrow_and_update().objects.clone();
        units.reconcile(wanted(&program, file, &plan, &objects));
        tokio::select! {
            changed = snapshots.changed() => changed.context("the watch of the manifests ended")?,
            () = &mut stop => break,
        }
    }
    units.stop().await;
    Ok(())
}

fn wanted(program: &str, file: &Path, plan: &ClusterPlan, objects: &[Object]) -> BTreeMap<String, Unit> {
    let mut units = BTreeMap::new();
    units.insert("control".to_owned(), Unit { commands: vec![control(program, file)] });
    for gateway in &plan.gateways {
        units.insert(gateway.name.clone(), Unit { commands: vec![self::gateway(program, file, gateway)] });
    }
    for proxy in veer_compile::ingress_proxies(objects) {
        let name = format!("{}.{}", proxy.proxy.namespace, proxy.proxy.name);
        units.insert(name.clone(), Unit { commands: vec![ingress(program, file, &name, &proxy)] });
    }
    for object in objects {
        let Kind::Workload(workload) = &object.kind else { continue };
        let external = object.meta.annotation(PROXY) == Some("external");
        if external || !workload.is_up() {
            continue;
        }
        let name = format!("{}.{}", object.meta.namespace, object.meta.name);
        let mut commands = vec![proxy(program, file, &name, object, workload)];
        if let Some(run) = &workload.run {
            commands.push(application(program, plan, &name, object, workload, run));
        }
        units.insert(name, Unit { commands });
    }
    units
}

fn veer(program: &str, verb: &str, file: &Path, name: &str, more: &[(&str, &str)]) -> Command {
    let mut argv = vec![program.to_owned(), verb.to_owned(), "--cluster-file".to_owned(), file.display().to_string()];
    argv.extend(more.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]));
    Command { name: name.to_owned(), argv, env: Vec::new(), dir: None, restart: Restart::Always, ready: None }
}

fn control(program: &str, file: &Path) -> Command {
    veer(program, "control", file, "control", &[])
}

fn gateway(program: &str, file: &Path, gateway: &GatewayPlan) -> Command {
    veer(program, "gateway", file, &gateway.name, &[("--name", &gateway.name)])
}

fn proxy(program: &str, file: &Path, name: &str, object: &Object, workload: &WorkloadSpec) -> Command {
    let (workload_name, address) = (format!("{}/{}", object.meta.namespace, object.meta.name), workload.address);
    let flags = [("--workload", workload_name.as_str()), ("--address", &address.to_string())];
    let mut command = veer(program, "proxy", file, &format!("{name}.proxy"), &flags);
    if object.meta.annotation(CAPTURE) == Some("true") {
        command.argv.push("--capture".to_owned());
    }
    if object.meta.annotation(ACCESS_LOG) == Some("true") {
        command.argv.push("--access-log".to_owned());
    }
    command.ready = Some(((address, ADMIN_PORT).into(), "/ready"));
    command
}

/// The proxy of a Gateway. An access log is asked for at the Gateway, as at a Workload.
fn ingress(program: &str, file: &Path, name: &str, ingress: &IngressProxy) -> Command {
    let flags = [("--workload", ingress.proxy.to_string()), ("--address", ingress.address.to_string())];
    let flags = flags.each_ref().map(|(flag, value)| (*flag, value.as_str()));
    let mut command = veer(program, "proxy", file, name, &flags);
    command.argv.push("--ingress".to_owned());
    if ingress.access_log {
        command.argv.push("--access-log".to_owned());
    }
    command
}

fn application(
    program: &str,
    plan: &ClusterPlan,
    name: &str,
    object: &Object,
    workload: &WorkloadSpec,
    run: &RunSpec,
) -> Command {
    let mut env = vec![
        ("VEER_BIN".to_owned(), program.to_owned()),
        ("VEER_ADDRESS".to_owned(), workload.address.to_string()),
        ("VEER_OUTBOUND".to_owned(), format!("{}:{OUTBOUND_PORT}", workload.address)),
        ("VEER_CLUSTER".to_owned(), plan.name.to_string()),
        ("VEER_WORKLOAD".to_owned(), object.meta.name.to_string()),
        ("VEER_NAMESPACE".to_owned(), object.meta.namespace.to_string()),
    ];
    for EnvVar { name, value, .. } in &run.env {
        let value = expand(value, &env);
        env.push((name.to_string(), value));
    }
    let argv = run.command.iter().map(|part| expand(part, &env)).collect();
    let folder = Path::new(&*object.at.file).parent().unwrap_or(Path::new("."));
    Command {
        name: name.to_owned(),
        argv,
        dir: run.working_dir.as_ref().map(|dir| folder.join(&**dir)),
        restart: match run.restart_policy {
            RestartPolicy::Never => Restart::Never,
            RestartPolicy::OnFailure => Restart::OnFailure,
            _ => Restart::Always,
        },
        env,
        ready: None,
    }
}

/// Replaces `$(NAME)` by the variable's value as Kubernetes does: unknown names stay as written, `$$(NAME)` is an escape.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        match reference {
            _ if rest.starts_with("$$") => {
                out.push('$');
                rest = &rest[2..];
            }
            Some((name, after)) => {
                match env.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => out.push_str(value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn variables_expand_as_in_kubernetes() {
        let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, expected) in [
            ("$(A):$(A)", "1:1"),
            ("$(B)", "$(A)"),
            ("$(C) stays", "$(C) stays"),
            ("$$(A)", "$(A)"),
            ("cost $5 $(A", "cost $5 $(A"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }
}

//! `veer get`: objects as they are written, with the status that the control plane gives them.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Target;
use super::look::{Answer, ask_all};
use crate::table::Table;

/// `veer get`
#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    target: Target,
    /// Kind as kubectl takes it (gateway, httproutes, …), or all
    kind: String,
    /// Only this name, or namespace/name
    name: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to answer
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table for people
    Text,
    /// The whole objects
    Yaml,
    /// The whole objects
    Json,
}

impl Get {
    /// Prints the objects; `Ok(false)` when a name was given and nothing has it.
    ///
    /// # Errors
    /// When no control plane can be asked.
    pub async fn run(self) -> anyhow::Result<bool> {
        let (namespace, name) = match self.name.as_deref().map(|name| name.split_once('/').unwrap_or(("", name))) {
            Some(("", name)) => (self.namespace.clone(), Some(name.to_owned())),
            Some((namespace, name)) => (Some(namespace.to_owned()), Some(name.to_owned())),
            None => (self.namespace.clone(), None),
        };
        let mut path = format!("/v1/objects?kind={}", self.kind);
        for (key, value) in [("namespace", &namespace), ("name", &name)] {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={value}");
            }
        }
        let answers = ask_all::<Vec<Value>>(&self.target, &path).await?;
        for Answer { cluster, error, .. } in answers.iter().filter(|answer| answer.error.is_some()) {
            anstream::eprintln!("{cluster}: {}", error.as_deref().unwrap_or_default());
        }
        let objects: Vec<(&str, &Value)> = answers
            .iter()
            .flat_map(|answer| answer.answer.iter().flatten().map(|object| (answer.cluster.as_str(), object)))
            .collect();
        match self.output {
            Form::Text => anstream::print!("{}", table(&objects)),
            Form::Json => {
                let all: Vec<&Value> = objects.iter().map(|(_, object)| *object).collect();
                anstream::println!("{}", serde_json::to_string_pretty(&all)?);
            }
            Form::Yaml => {
                for (index, (_, object)) in objects.iter().enumerate() {
                    anstream::print!("{}{}", if index > 0 { "---\n" } else { "" }, yaml(object));
                }
            }
        }
        Ok(answers.iter().all(|answer| answer.error.is_none()) && !(name.is_some() && objects.is_empty()))
    }
}

fn table(objects: &[(&str, &Value)]) -> String {
    let mut table = Table::new(&["cluster", "kind", "name", "parent", "routes", "state"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (cluster, object) in objects {
        let meta = &object["metadata"];
        let name = match meta["namespace"].as_str() {
            Some(namespace) => format!("{namespace}/{}", text(&meta["name"])),
            None => text(&meta["name"]),
        };
        let mut row = |parent: String, routes: String, state: String| {
            table.row([(*cluster).to_owned(), text(&object["kind"]), name.clone(), parent, routes, state]);
        };
        let status = &object["status"];
        if status["conditions"].is_array() {
            let addresses: Vec<String> =
                status["addresses"].as_array().into_iter().flatten().map(|a| text(&a["value"])).collect();
            row(addresses.join(","), String::new(), state(&status["conditions"]));
        }
        for listener in status["listeners"].as_array().into_iter().flatten() {
            row(
                format!("  {}", text(&listener["name"])),
                listener["attachedRoutes"].to_string(),
                state(&listener["conditions"]),
            );
        }
        for ancestor in status["ancestors"].as_array().into_iter().flatten() {
            let reference = &ancestor["ancestorRef"];
            let of = format!("{} {}", text(&reference["kind"]), text(&reference["name"]));
            row(of, String::new(), state(&ancestor["conditions"]));
        }
        for parent in status["parents"].as_array().into_iter().flatten() {
            let reference = &parent["parentRef"];
            let section = reference["sectionName"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
            row(
                format!("{} {}{section}", text(&reference["kind"]), text(&reference["name"])),
                String::new(),
                state(&parent["conditions"]),
            );
        }
    }
    table.to_string()
}

/// What a person needs to know of conditions: that all is well, or what is not, and why.
fn state(conditions: &Value) -> String {
    let bad = |condition: &&Value| {
        let bad_when =
            if matches!(condition["type"].as_str(), Some("Conflicted" | "PartiallyInvalid" | "OverlappingTLSConfig")) {
                "True"
            } else {
                "False"
            };
        condition["status"] == bad_when || condition["reason"] == "ListenersNotValid"
    };
    let told: Vec<String> = conditions
        .as_array()
        .into_iter()
        .flatten()
        .filter(bad)
        .map(|condition| {
            let part = |name: &str| condition[name].as_str().unwrap_or_default();
            format!("{} {}: {}", part("type"), part("reason"), part("message"))
        })
        .collect();
    if told.is_empty() { "ok".to_owned() } else { told.join("; ") }
}

/// A value as a YAML document, fields in the order that kubectl has.
fn yaml(object: &Value) -> String {
    let mut out = String::new();
    for key in ["apiVersion", "kind", "metadata", "spec", "status"] {
        if let Some(value) = object.get(key) {
            field(&mut out, 0, key, value);
        }
    }
    out
}

fn field(out: &mut String, indent: usize, key: &str, value: &Value) {
    let _ = write!(out, "{:indent$}{}:", "", scalar(key));
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            fields.iter().for_each(|(key, value)| field(out, indent + 2, key, value));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            items.iter().for_each(|item| list_item(out, indent, item));
        }
        value => drop(writeln!(out, " {}", flat(value))),
    }
}

fn list_item(out: &mut String, indent: usize, item: &Value) {
    let mut inner = String::new();
    match item {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| field(&mut inner, indent + 2, key, value));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| list_item(&mut inner, indent + 2, item))
        }
        value => drop(writeln!(inner, "{:1$}{2}", "", indent + 2, flat(value))),
    }
    // The first line carries the dash in the place of its indentation.
    let _ = write!(out, "{:indent$}- {}", "", &inner[indent + 2..]);
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Plain where no reader could take it for anything else; JSON's quoted form is YAML's as well.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_ascii_lowercase());
    if begins && !word && text.chars().all(plain) { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_printed_as_kubectl_prints_them() {
        let object = json!({
            "kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1",
            "metadata": { "name": "web", "labels": {} },
            "spec": { "listeners": [{ "name": "a", "port": 80, "tls": { "options": { "example.com/x": "true" } } }, "*.b"], "flags": [[1, 2], []] },
            "status": { "conditions": [] },
        });
        assert_eq!(
            yaml(&object),
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  labels: {}\n  name: web\nspec:\n  flags:\n  - - 1\n    - 2\n  - []\n  listeners:\n  - name: a\n    port: 80\n    tls:\n      options:\n        example.com/x: \"true\"\n  - \"*.b\"\nstatus:\n  conditions: []\n"
        );
    }

    #[test]
    fn a_state_names_what_is_wrong() {
        let condition = |name: &str, status: &str, reason: &str| json!({ "type": name, "status": status, "reason": reason, "message": "m" });
        assert_eq!(
            state(&json!([condition("Accepted", "True", "Accepted"), condition("Conflicted", "False", "NoConflicts")])),
            "ok"
        );
        assert_eq!(
            state(&json!([condition("Conflicted", "True", "HostnameConflict")])),
            "Conflicted HostnameConflict: m"
        );
    }
}

//! The same requests through Veer, Envoy, HAProxy and nginx, byte by byte: what reaches the backend, and what comes back. `docs/differential.md`
//! holds the outcome of every case, and why Veer differs where it does; the test writes it when `VEER_BLESS=1` is set.

mod answers;
mod cases;
mod frames;
mod generated;
mod origin;
pub mod peers;
mod streams;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::raw::Seen;
use crate::harness::run;
use cases::{Case, cases};
use origin::{Answer, take_answer};
use peers::Proxy;

/// What follows every case on its connection: whoever takes more or less of a case for a request than others do shows it here.
/// With it each connection ends by itself.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
/// Around its table in the document.
const MARKS: (&str, &str) = ("<!-- outcomes: written by the test -->\n", "<!-- end of outcomes -->");
/// When neither an answer nor an end comes for so long, the proxy waits for more.
const STILL: Duration = Duration::from_millis(2500);

/// What became of a case at one proxy.
#[derive(Debug)]
struct Outcome {
    /// Requests that reached the backend, each once though it may have been tried again.
    asked: Vec<Seen>,
    answers: Vec<Answer>,
    /// The proxy waits for more.
    waits: bool,
}

#[test]
fn every_difference_to_other_proxies_is_explained() {
    run(async {
        let cases = cases();
        let all = columns(&cases).await;
        let row = |(number, case): (usize, &Case)| Row {
            name: case.name,
            cells: all.iter().map(|(_, outcomes)| outcomes[number].cell(case)).collect(),
            why: case.why,
        };
        let rows: Vec<_> = cases.iter().enumerate().map(row).collect();
        check_table(MARKS, &table(all.iter().map(|(name, _)| *name), &rows));
        judge(&rows, "cases.rs");
        for (name, outcomes) in &all {
            let both = outcomes.iter().position(Outcome::frames_twice);
            assert_eq!(both.map(|number| cases[number].name), None, "{name} passed on a length and a coding");
        }
    });
}

#[test]
fn ordinary_requests_are_the_same_behind_every_proxy() {
    run(async {
        let cases = generated::cases(11, 150);
        for (name, outcomes) in columns(&cases).await {
            for (case, outcome) in cases.iter().zip(outcomes) {
                let cell = outcome.cell(case);
                assert_eq!(cell, "passed", "{name}: {}: {outcome:#?}", case.raw.escape_ascii());
            }
        }
    });
}

/// All cases at all proxies; Veer comes first.
async fn columns(cases: &[Case]) -> Vec<(&'static str, Vec<Outcome>)> {
    let proxies = peers::all().await;
    let ways = proxies.iter().map(async |proxy| {
        let mut outcomes = Vec::new();
        for case in cases {
            outcomes.push(drive(proxy, case).await);
        }
        (proxy.name, outcomes)
    });
    futures_util::future::join_all(ways).await
}

async fn drive(proxy: &Proxy, case: &Case) -> Outcome {
    proxy.origin.say(case.answer);
    let mut stream = TcpStream::connect(proxy.listen).await.unwrap();
    let sent = [&case.raw, NEXT.as_bytes()].concat();
    let mut got = Vec::new();
    let mut waits = false;
    let (mut reading, mut writing) = stream.split();
    let write = async {
        // Whoever refuses may not read all of it.
        let _ = writing.write_all(&sent).await;
    };
    let read = async {
        loop {
            match tokio::time::timeout(STILL, reading.read_buf(&mut got)).await {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return,
                Err(_) => return waits = true,
            }
        }
    };
    futures_util::future::join(write, read).await;
    let mut answers = Vec::new();
    let mut rest = got.as_slice();
    while !rest.is_empty() {
        let bodiless = answers.is_empty() && case.raw.starts_with(b"HEAD ");
        let (answer, used) = take_answer(rest, bodiless);
        answers.push(answer);
        rest = &rest[used..];
    }
    Outcome { asked: proxy.origin.seen(), answers, waits }
}

impl Outcome {
    /// Something was passed on of which two readers could make different messages.
    fn frames_twice(&self) -> bool {
        let has = |fields: &[(String, String)], sought| fields.iter().any(|(name, _)| name == sought);
        let all = self.asked.iter().map(|seen| &seen.fields).chain(self.answers.iter().map(|answer| &answer.fields));
        all.into_iter().any(|fields| has(fields, "content-length") && has(fields, "transfer-encoding"))
    }

    /// The outcome in few words.
    fn cell(&self, case: &Case) -> String {
        let passed: Vec<_> = self.asked.iter().filter(|seen| seen.path() != "/next").collect();
        let next = self.answers.iter().position(|answer| answer.body == b"next");
        let own = &self.answers[..next.unwrap_or(self.answers.len())];
        let mut words = Vec::new();
        let refused = passed.is_empty();
        let answers = own.iter().map(Answer::words).collect::<Vec<_>>().join(", ");
        let expected = case.expected();
        if refused {
            words.push(match answers.as_str() {
                "" if self.waits => "waits".to_owned(),
                "" => "closed".to_owned(),
                _ => answers,
            });
        } else {
            words.push("passed".to_owned());
            let count = expected.len().max(1);
            if passed.len() != count {
                words.push(format!("as {} requests", passed.len()));
            }
            words.extend(expected.iter().zip(passed).flat_map(|(sent, came)| changes(sent, came)));
            if !case.answer.is_empty() || own.iter().any(|answer| !answer.is_plain()) || own.len() != count {
                words.push(format!("answer {}", if answers.is_empty() { "none" } else { &answers }));
            }
        }
        match next {
            _ if self.waits => words.push("waits".to_owned()),
            Some(_) if refused => words.push("goes on".to_owned()),
            None if !refused && !case.ends => words.push("then closed".to_owned()),
            _ => {}
        }
        words.dedup();
        words.join("; ")
    }
}

/// What a proxy changed of a request. The framing and what only the connection to the backend concerns is the proxy's own, and the body
/// tells whether it was right; the trace and the caller's name are what Veer adds to every request, the scheme what
/// Envoy adds.
fn changes(sent: &Seen, came: &Seen) -> Vec<String> {
    let mut words = Vec::new();
    if came.line != sent.line {
        words.push(format!("`{}`", came.line.chars().take(40).collect::<String>()));
    }
    let own = |name: &str| {
        ["content-length", "transfer-encoding", "connection", "traceparent", "x-veer-client-id", "x-forwarded-proto"]
            .contains(&name)
    };
    let of = |seen: &Seen| seen.fields.iter().filter(|(name, _)| !own(name)).cloned().collect::<Vec<_>>();
    let (before, mut behind) = (of(sent), of(came));
    for (name, value) in before {
        // The next of this name: those that share a name keep their order.
        match behind.iter().position(|field| field.0 == name).map(|at| behind.remove(at).1) {
            Some(came) if came == value => {}
            Some(came) => words.push(format!("`{name}: {came}`")),
            None => words.push(format!("without `{name}`")),
        }
    }
    words.extend(behind.iter().map(|(name, value)| format!("with `{name}: {value}`")));
    if came.body != sent.body {
        words.push(format!("body `{}`", came.body.escape_ascii()));
    }
    if came.trailers != sent.trailers {
        words.push("without trailers".to_owned());
    }
    words
}

/// A row of a table: what became of a case at each proxy.
struct Row {
    name: &'static str,
    /// Veer's is the first.
    cells: Vec<String>,
    why: &'static str,
}

/// Whether each difference has a reason, and no other row has one.
fn judge(rows: &[Row], file: &str) {
    let wrong = rows.iter().filter_map(|Row { name, cells, why }| {
        let differs = cells.iter().any(|cell| *cell != cells[0]);
        let problem = if differs { "no reason says why" } else { "the reason explains nothing" };
        (differs == why.is_empty()).then(|| format!("{name}: {problem}: {cells:?}"))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "reasons stand in tests/mesh/differential/{file}:\n{}", wrong.join("\n"));
}

fn table<'a>(names: impl Iterator<Item = &'a str>, rows: &[Row]) -> String {
    let names: Vec<_> = names.collect();
    let mut text =
        format!("| case | {} | why Veer differs |\n|---|{}---|\n", names.join(" | "), "---|".repeat(names.len()));
    for Row { name, cells, why } in rows {
        text.push_str(&format!("| {name} | {} | {why} |\n", cells.join(" | ")));
    }
    text
}

/// Compares what stands between the document's marks, or writes it.
fn check_table(marks: (&str, &str), table: &str) {
    // Both tables stand in one document, and their tests may run at once.
    static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = WRITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/differential.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(marks.0).expect("docs/differential.md has its first mark");
    let (committed, behind) = rest.split_once(marks.1).expect("docs/differential.md has its last mark");
    if std::env::var_os("VEER_BLESS").is_some() {
        return std::fs::write(&path, [before, marks.0, table, marks.1, behind].concat()).unwrap();
    }
    let lost =
        committed.lines().filter(|line| !table.lines().any(|other| other == *line)).map(|line| format!("- {line}"));
    let new =
        table.lines().filter(|line| !committed.lines().any(|other| other == *line)).map(|line| format!("+ {line}"));
    let differences: Vec<_> = lost.chain(new).collect();
    assert!(
        differences.is_empty(),
        "docs/differential.md is not what happens (VEER_BLESS=1 writes it anew):\n{}",
        differences.join("\n")
    );
}

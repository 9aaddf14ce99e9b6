//! Reading the Prometheus text format, and quantiles from histograms: what `veer stat` does with what proxies expose.

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name with its suffix (`_total`, `_bucket`, …).
    pub name: String,
    /// Labels as written.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty when the label is absent, which Prometheus takes for the same.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A line that is not of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Reads an exposition. Comments, time stamps and exemplars are passed over.
///
/// # Errors
/// The first line that is not of the format.
pub fn parse(text: &str) -> Result<Vec<Sample>, ParseError> {
    let mut samples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        samples.push(sample(line).map_err(|reason| ParseError { line: number + 1, reason })?);
    }
    Ok(samples)
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace()).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':') {
        return Err("not a metric name");
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let value = rest.split_whitespace().next().ok_or("no value")?;
    let value = value.parse::<f64>().map_err(|_| "the value is not a number")?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Reads up to and over the closing brace; returns what follows.
fn read_labels<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Result<&'a str, &'static str> {
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once('=').ok_or("a label without value")?;
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("not a label name");
        }
        let quoted = after.trim_start().strip_prefix('"').ok_or("a label value without quotes")?;
        let (value, after) = read_value(quoted)?;
        labels.insert(name.to_owned(), value);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("labels without comma or closing brace"),
        }
    }
}

fn read_value(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => return Err("an unknown escape in a label value"),
            },
            c => value.push(c),
        }
    }
    Err("a label value without end")
}

/// A histogram's buckets: upper bound and number of observations up to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    /// From cumulative `_bucket` samples of any number of series, which are added up by bound.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let mut all = Self::default();
        for sample in samples {
            if let Ok(bound) = sample.label("le").parse::<f64>() {
                all.add(bound, sample.value);
            }
        }
        all
    }

    /// Adds observations up to a bound; the caller adds them to every higher bound as well.
    pub fn add(&mut self, bound: f64, count: f64) {
        if bound.is_nan() {
            return;
        }
        match self.0.binary_search_by(|(held, _)| held.total_cmp(&bound)) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bound, count)),
        }
    }

    /// Adds the observations of another histogram with the same bounds.
    pub fn merge(&mut self, other: &Buckets) {
        other.0.iter().for_each(|(bound, count)| self.add(*bound, *count));
    }

    /// What was observed since `earlier`. A number that fell means that the process began anew: then everything is new.
    pub fn since(&self, earlier: &Buckets) -> Buckets {
        let before = |bound: f64| earlier.0.iter().find(|(held, _)| *held == bound).map_or(0.0, |(_, n)| *n);
        if self.0.iter().any(|(bound, n)| *n < before(*bound)) {
            return self.clone();
        }
        Buckets(self.0.iter().map(|(bound, n)| (*bound, n - before(*bound))).collect())
    }

    /// Observations.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, n)| *n)
    }

    /// Estimates the value below which the share `q` (0 to 1) of observations lies, evenly spread within its bucket as
    /// Prometheus' `histogram_quantile` takes it. In the unbounded bucket: the highest bound. `None` without observations.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total <= 0.0 || self.0.is_empty() {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total;
        let at = self.0.iter().position(|(_, n)| *n >= rank).unwrap_or(self.0.len() - 1);
        let (upper, here) = self.0[at];
        let (lower, below) = match at {
            0 => (0.0, 0.0),
            at => self.0[at - 1],
        };
        if upper.is_infinite() {
            return (at > 0).then_some(lower);
        }
        let inside = here - below;
        if inside <= 0.0 {
            return Some(upper);
        }
        Some(lower + (upper - lower) * ((rank - below) / inside).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_is_read() {
        let text = "# HELP a b\n# TYPE a counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n, }\"} 3 1700000000 # {t=\"1\"} 2\n\nb 1.5\nc{} +Inf\n# EOF\n";
        let samples = parse(text).unwrap();
        assert_eq!(samples.len(), 3);
        assert_eq!((samples[0].name.as_str(), samples[0].value), ("a_total", 3.0));
        assert_eq!((samples[0].label("x"), samples[0].label("y"), samples[0].label("z")), ("1", "q\"\\\n, }", ""));
        assert_eq!(samples[1].value, 1.5);
        assert!(samples[2].value.is_infinite());
    }

    #[test]
    fn faults_are_told_with_their_line() {
        for bad in
            ["a", "a{", "a{x} 1", "a{x=1} 1", "a{x=\"1} 1", "a{x=\"1\"y=\"2\"} 1", "a one", "é 1", "a{x=\"\\t\"} 1"]
        {
            assert_eq!(parse(&format!("ok 1\n{bad}\n")).unwrap_err().line, 2, "{bad}");
        }
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut buckets = Buckets::default();
        for (bound, n) in [(1.0, 10.0), (2.0, 30.0), (4.0, 40.0), (f64::INFINITY, 40.0)] {
            buckets.add(bound, n);
        }
        assert_eq!(buckets.quantile(0.5), Some(1.5));
        assert_eq!(buckets.quantile(0.25), Some(1.0));
        assert_eq!(buckets.quantile(1.0), Some(4.0));
        assert_eq!(buckets.quantile(0.0), Some(0.0));
        assert_eq!(Buckets::default().quantile(0.5), None);
        buckets.add(f64::INFINITY, 60.0);
        assert_eq!(buckets.quantile(0.99), Some(4.0), "nothing is known beyond the highest bound");
    }

    #[test]
    fn differences_survive_a_restart() {
        let at = |n: f64| Buckets(vec![(1.0, n), (f64::INFINITY, 2.0 * n)]);
        assert_eq!(at(5.0).since(&at(3.0)), at(2.0));
        assert_eq!(at(1.0).since(&at(3.0)), at(1.0));
        assert_eq!(at(1.0).since(&Buckets::default()), at(1.0));
    }

    proptest! {
        #[test]
        fn any_text_may_be_given(text in "\\PC{0,200}", line in "[a-z]{1,3}\\{[a-z=\",\\\\ }]{0,20} ?[0-9]?") {
            let _ = parse(&text);
            let _ = parse(&line);
        }

        #[test]
        fn quantiles_grow(counts in proptest::collection::vec(0u32..50, 1..8), a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let mut buckets = Buckets::default();
            let mut sum = 0.0;
            for (i, n) in counts.iter().enumerate() {
                sum += f64::from(*n);
                buckets.add((i + 1) as f64, sum);
            }
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(buckets.quantile(low) <= buckets.quantile(high));
        }
    }
}

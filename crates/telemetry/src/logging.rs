//! Logs of the program itself: to standard error, as text or JSON, filtered by `VEER_LOG`.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Environment variable with the filter: `info`, `veer_proxy=debug,info`, …
pub const FILTER_VARIABLE: &str = "VEER_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured on a terminal only.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging for the process. The filter is `filter`, or `default` when it is absent or malformed; pass the value of
/// [`FILTER_VARIABLE`].
///
/// # Errors
/// When logging was started before.
pub fn init(filter: Option<&str>, default: &str, format: LogFormat) -> Result<(), String> {
    let parsed = filter.map(EnvFilter::try_new);
    let (filter, complaint) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error.to_string())),
        None => (EnvFilter::new(default), None),
    };
    // A line that cannot be written is lost: telling that on the same standard error would panic, for want of a disk that is not full.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.with_ansi(false).event_format(Json).try_init(),
    };
    started.map_err(|error| error.to_string())?;
    if let Some(complaint) = complaint {
        tracing::warn!("{FILTER_VARIABLE} is not understood ({complaint}), using {default:?}");
    }
    Ok(())
}

/// One JSON object per event: time, level, target, message, the event's fields.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        // The own keys last: an event's field cannot pretend to be one.
        fields.0.insert("time".into(), time.into());
        fields.0.insert("level".into(), metadata.level().as_str().to_lowercase().into());
        fields.0.insert("target".into(), metadata.target().into());
        let line = serde_json::to_string(&fields.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_owned(), value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_holds_the_fields() {
        let sink = Sink::default();
        let to = sink.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Json).with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(cluster = "west", age = 3, level = "no", "a \"quoted\" message");
        });
        let bytes = sink.0.lock().unwrap().clone();
        let line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["cluster"], "west");
        assert_eq!(line["age"], 3);
        assert_eq!(line["message"], "a \"quoted\" message");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }
}

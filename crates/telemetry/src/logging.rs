//! Logs go to standard error, so that standard output stays free for what a command prints.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::TelemetryError;

/// How and what to log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// Directives as `tracing` writes them: `info`, or `info,gateway=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

impl LogConfig {
    /// Refuses a filter that cannot be parsed.
    pub fn validate(&self) -> Result<(), TelemetryError> {
        self.env_filter().map(|_| ())
    }

    fn env_filter(&self) -> Result<EnvFilter, TelemetryError> {
        EnvFilter::builder().parse(&self.filter).map_err(|error| TelemetryError::Filter {
            filter: self.filter.clone(),
            reason: error.to_string(),
        })
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event, coloured on a terminal.
    Text,
    /// One JSON object a line, the event's fields at its top level.
    Json,
}

/// Starts logging to standard error. Once a process, from its binary.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    subscriber(config, std::io::stderr, std::io::stderr().is_terminal())?
        .try_init()
        .map_err(|_| TelemetryError::AlreadyInitialized)
}

fn subscriber<W>(
    config: &LogConfig,
    writer: W,
    colours: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.env_filter()?)
        .with_writer(writer)
        .with_ansi(colours);
    Ok(match config.format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &LogConfig) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(config, move || writer.clone(), false).expect("a good filter");
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", request_id = "r-1");
            let _entered = span.enter();
            tracing::info!(worker = "w-1", tokens = 7, "answered");
            tracing::debug!("detail");
        });
        let bytes = captured.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_json_line_carries_the_fields_and_its_requests_id() {
        let text = logged(&LogConfig { format: LogFormat::Json, ..LogConfig::default() });
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON object");
        assert_eq!(line["message"], "answered");
        assert_eq!(line["worker"], "w-1");
        assert_eq!(line["tokens"], 7);
        assert_eq!(line["span"]["request_id"], "r-1");
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        let with_filter = |filter: &str| logged(&LogConfig { filter: filter.into(), ..LogConfig::default() });
        assert!(!with_filter("info").contains("detail"));
        assert!(with_filter("warn,telemetry=debug").contains("detail"));
        assert_eq!(with_filter("off"), "");
    }

    #[test]
    fn a_bad_filter_is_refused_with_the_form_that_was_expected() {
        let config = LogConfig { filter: "gateway=loud".into(), ..LogConfig::default() };
        let message = config.validate().expect_err("not a level").to_string();
        assert!(message.contains("`gateway=loud`") && message.contains("info,gateway=debug"), "{message}");
    }

    #[test]
    fn defaults_are_text_at_info_and_unknown_keys_are_refused() {
        let config: LogConfig = serde_json::from_str("{}").expect("all fields have defaults");
        assert_eq!(config, LogConfig { format: LogFormat::Text, filter: "info".into() });
        assert!(serde_json::from_str::<LogConfig>(r#"{"level": "info"}"#).is_err());
    }
}

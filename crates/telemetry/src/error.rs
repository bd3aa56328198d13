/// Why metrics or logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The same series is in the registry already, or its name or labels are not valid.
    #[error("metric `{name}` could not be registered; give each role a registry of its own")]
    Register {
        /// The metric's name.
        name: &'static str,
        /// What the registry said.
        source: prometheus::Error,
    },
    /// The log filter is not in the `target=level` form.
    #[error("log filter `{filter}` is not valid: {reason}; expected directives such as `info,gateway=debug`")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bound on label values that cannot be held.
    #[error("`{field}` must be at least 1, not 0; leave it out for its default")]
    Limit {
        /// The field of [`crate::LabelLimits`].
        field: &'static str,
    },
    /// Logging is set up once a process.
    #[error("logging is set up already; call `init` once, from the binary")]
    AlreadyInitialized,
}

//! Names of the headers that gateway and worker add. A gateway strips every `x-tenk-*` header that a client sends,
//! save the few that clients may set.

/// Everything of ours starts with this.
pub const PREFIX: &str = "x-tenk-";
/// Response: `hit`, `miss`, `coalesced` or `bypass`. Request: `force` caches an answer that is not deterministic.
pub const CACHE: &str = "x-tenk-cache";
/// Response: which worker answered, by its bounded name, never by its address.
pub const WORKER: &str = "x-tenk-worker";
/// Response: which model version answered.
pub const MODEL_VERSION: &str = "x-tenk-model-version";
/// Request: keeps a conversation on one model version.
pub const SESSION: &str = "x-tenk-session";
/// Request: asks for this version of the model, whatever its share of the users is.
pub const VERSION: &str = "x-tenk-version";
/// Both: set by the client or made by the gateway, handed down to the worker's log.
pub const REQUEST_ID: &str = "x-request-id";

/// The headers of ours that a client may set.
pub const FROM_CLIENTS: [&str; 3] = [CACHE, SESSION, VERSION];

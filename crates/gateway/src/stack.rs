//! The order of the layers, as one list.

use std::sync::Arc;

use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;

use crate::call::{Answer, Call};
use crate::error::CallError;
use crate::layers::{AdmitLayer, AssignLayer, BalanceLayer, CacheLayer, Forward};
use crate::state::State;

/// Everything that happens to a call once it has been parsed.
pub(crate) type Stack = BoxCloneSyncService<Call, Answer, CallError>;

/// A request goes down this list and its answer back up. Above it, in `server.rs`, are the layers that still see
/// HTTP: trace (request id, metrics), authenticate, and the body limit with the parse.
pub(crate) fn build(state: &Arc<State>) -> Stack {
    let layers = ServiceBuilder::new()
        // Which version of the model answers: by weight, the same for one user as long as weights stand still.
        .layer(AssignLayer::new(state))
        // An answer that was given before, or is being given right now, is not computed again.
        .layer(CacheLayer::new(state))
        // A bounded number of requests is with workers, a bounded number waits, the rest is told so at once.
        .layer(AdmitLayer::new(state))
        // Which worker: affinity to cached prefixes that yields to load. Another one if the first fails in time.
        .layer(BalanceLayer::new(state))
        // Over HTTP to that worker, and its answer back as it comes.
        .service(Forward::new(state));
    Stack::new(layers)
}

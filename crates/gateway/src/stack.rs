//! The order of the layers, as one list.

use std::sync::Arc;

use axum::{Router, middleware};
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;

use crate::call::{Answer, Call};
use crate::error::CallError;
use crate::layers::authenticate::authenticate;
use crate::layers::trace::trace;
use crate::layers::{AdmitLayer, AssignLayer, BalanceLayer, CacheLayer, Forward};
use crate::server::Front;
use crate::state::State;

/// Everything that happens to a call once it has been parsed.
pub(crate) type Stack = BoxCloneSyncService<Call, Answer, CallError>;

/// The layers that still see HTTP. A request goes down this list, through `edge`, which bounds the body and parses it
/// once, and on through the list of [`build`].
pub(crate) fn http(routes: Router<Front>, state: Arc<State>) -> Router<Front> {
    let layers = ServiceBuilder::new()
        // An id for every request; one log line and the counts for its end, however it ends.
        .layer(middleware::from_fn_with_state(Arc::clone(&state), trace))
        // Whose key it is. Headers that only we may set are taken away.
        .layer(middleware::from_fn_with_state(state, authenticate));
    routes.route_layer(layers)
}

/// The layers that see calls. An answer goes back up this list.
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

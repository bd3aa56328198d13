//! What gateway, worker and controller share as servers of HTTP, whatever it is that they serve.
//!
//! They listen to whoever calls, and none must be held by a peer that says nothing, takes nothing in, or sends more
//! than there is room for; nor may what one request computes hold up the connections of all others.

mod bodies;
mod compute;
mod connections;
mod replies;

pub use bodies::{Bodies, Body};
pub use compute::{Compute, INLINE_BYTES_MAX};
pub use connections::Connections;
pub use replies::{Failed, has_key};

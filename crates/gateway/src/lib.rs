//! The front door: authenticates, answers from the cache, balances over workers, and passes bytes through.
//!
//! The order in which a request goes through the layers is one list, in `stack.rs`. Workers are asked over OpenAI's
//! HTTP API, so that any server of it can stand where ours does. The gateway must not know tensors or tokens.

mod call;
mod client;
mod config;
mod error;
mod layers;
mod observe;
mod parse;
mod pool;
mod server;
mod stack;
mod state;
mod watch;

pub use config::{Config, ConfigError, KeyConfig};
pub use error::GatewayError;
pub use server::{Gateway, GatewayParts};

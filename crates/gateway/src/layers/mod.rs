//! One layer a file; `stack.rs` has their order.

mod admit;
mod assign;
pub(crate) mod authenticate;
mod balance;
mod cache;
pub(crate) mod edge;
mod forward;
pub(crate) mod trace;

pub(crate) use admit::AdmitLayer;
pub(crate) use assign::AssignLayer;
pub(crate) use balance::BalanceLayer;
pub(crate) use cache::CacheLayer;
pub(crate) use forward::Forward;

/// Declares a layer that wraps a service together with the gateway's state.
macro_rules! layer {
    ($(#[$doc:meta])* $layer:ident => $service:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub(crate) struct $layer(std::sync::Arc<crate::state::State>);

        impl $layer {
            pub(crate) fn new(state: &std::sync::Arc<crate::state::State>) -> Self {
                Self(std::sync::Arc::clone(state))
            }
        }

        impl<S> tower::Layer<S> for $layer {
            type Service = $service<S>;

            fn layer(&self, inner: S) -> $service<S> {
                $service { state: std::sync::Arc::clone(&self.0), inner }
            }
        }

        /// The layer's service.
        #[derive(Clone)]
        pub(crate) struct $service<S> {
            state: std::sync::Arc<crate::state::State>,
            inner: S,
        }

        impl<S: crate::call::CallService> tower::Service<crate::call::Call> for $service<S> {
            type Response = crate::call::Answer;
            type Error = crate::error::CallError;
            type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

            /// Every layer is always ready: waiting is the admission's, where it has a bound.
            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, call: crate::call::Call) -> Self::Future {
                Box::pin(self.clone().run(call))
            }
        }
    };
}
pub(crate) use layer;

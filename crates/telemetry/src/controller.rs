//! The handles of a controller's metrics.

use std::ops::Deref;
use std::sync::Arc;

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use crate::TelemetryError;
use crate::catalogue::controller as specs;
use crate::series::{Family, register};

/// Actions and models that are told apart.
const ACTIONS_MAX: usize = 32;
const MODELS_MAX: usize = 256;

/// A controller's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct ControllerMetrics(Arc<ControllerSeries>);

impl Deref for ControllerMetrics {
    type Target = ControllerSeries;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// One series a field.
#[derive(Debug)]
pub struct ControllerSeries {
    decisions: Family<IntCounter>,
    percent: Family<Gauge>,
    /// 1 while this controller decides.
    pub deciding: IntGauge,
}

impl ControllerMetrics {
    /// Registers a controller's metrics.
    pub fn new(registry: &Registry) -> Result<Self, TelemetryError> {
        Ok(Self(Arc::new(ControllerSeries {
            decisions: Family::new(registry, &specs::DECISIONS, &[], ACTIONS_MAX)?,
            percent: Family::new(registry, &specs::PERCENT, &[], MODELS_MAX)?,
            deciding: register(registry, &specs::DECIDING, &[])?,
        })))
    }
}

impl ControllerSeries {
    /// The counter of decisions of one kind, a fixed word.
    pub fn decisions(&self, action: &str) -> IntCounter {
        self.decisions.get(action)
    }

    /// The share of a model's users that its new version has.
    pub fn percent(&self, model: &str) -> Gauge {
        self.percent.get(model)
    }
}

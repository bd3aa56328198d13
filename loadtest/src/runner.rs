//! Joins searches, sweeps and labs to the driver.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::api_key::ApiKey;
use crate::driver::LoadTest;
use crate::error::Error;
use crate::figures::{Figures, Runner};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tokenizer::OpenTokenizer;

/// Runs scenarios over the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Driver {
    /// Sent to the target and nowhere else.
    pub(crate) api_key: Option<ApiKey>,
    /// Opens the tokenizers that scenarios name.
    pub(crate) open_tokenizer: Option<OpenTokenizer>,
    /// Gets a folder for each run.
    pub(crate) report_dir: Option<PathBuf>,
    /// Show a line of progress on standard error.
    pub(crate) progress: bool,
}

impl Runner for Driver {
    type Run = Report;

    async fn run(
        &mut self,
        scenario: Scenario,
        label: &str,
        stop: &CancellationToken,
    ) -> Result<Report, Error> {
        let report_dir = self.report_dir.as_ref().map(|dir| dir.join(label));
        let load_test = LoadTest {
            api_key: self.api_key.clone(),
            open_tokenizer: self.open_tokenizer,
            report_dir: report_dir.clone(),
            progress: self.progress,
            ..LoadTest::new(scenario)
        };
        let report = load_test.run(stop.clone()).await?;
        if let Some(dir) = report_dir {
            report.save(&dir)?;
        }
        Ok(report)
    }
}

impl Figures for Report {
    fn figure(&self, name: &str) -> Option<f64> {
        Self::figure(self, name)
    }

    fn valid(&self) -> bool {
        self.valid
    }

    fn interrupted(&self) -> bool {
        self.interrupted
    }
}

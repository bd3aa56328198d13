//! What must be known before a run: what its files hold, the model's name, how long prompts are in tokens.

use std::sync::Arc;

use crate::api_key::ApiKey;
use crate::arrivals::{Limit, Pace};
use crate::asking::Asking;
use crate::client::Client;
use crate::error::Error;
use crate::prompts::{Asker, Material, PromptBasis};
use crate::scenario::Scenario;
use crate::target::Target;
use crate::tokenizer::{self, OpenTokenizer};

pub(super) struct Prepared {
    pub(super) client: Client,
    pub(super) asking: Arc<dyn Asking>,
    pub(super) pace: Pace,
    pub(super) model: String,
    pub(super) prompt_basis: PromptBasis,
}

pub(super) async fn prepare(
    scenario: &Scenario,
    target: Target,
    api_key: Option<&ApiKey>,
    open_tokenizer: Option<OpenTokenizer>,
) -> Result<Prepared, Error> {
    // Files first: what is wrong in them needs no server.
    let mut material = Material::read(scenario)?;
    let given = tokenizer::given(scenario, open_tokenizer)?;
    let trace_us = material.trace.iter().map(|request| request.at_us).collect();
    let pace = Pace::new(&scenario.arrivals, scenario.seed, Limit::of(scenario), trace_us)?;
    let mut client = Client::new(scenario, target, api_key)?;
    let model = match &scenario.model {
        Some(model) => model.clone(),
        None => client.first_model().await?,
    };
    client.set_model(&model, scenario);
    let prompt_basis = match given {
        Some(count) => {
            let count = async |text: &str| count(text).map(Some).map_err(Error::Config);
            material.calibrate(scenario, count).await?.by_given_tokenizer()
        }
        None => material.calibrate(scenario, async |text| client.count_tokens(text).await).await?,
    };
    let asking = Arc::new(Asker::new(scenario, material)?);
    Ok(Prepared { client, asking, pace, model, prompt_basis })
}

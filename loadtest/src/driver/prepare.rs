//! What must be known before a run: the model's name, how long prompts are in the target's tokens, and what its files hold.

use std::sync::Arc;

use crate::api_key::ApiKey;
use crate::arrivals::{Limit, Pace};
use crate::asking::Asking;
use crate::client::Client;
use crate::error::Error;
use crate::prompts::{Asker, Material, PromptBasis, PromptFile, TokensPerWord, calibrate};
use crate::scenario::{Arrivals, Length, Prompts, Scenario};
use crate::target::Target;
use crate::trace::{self, TraceRequest};

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
) -> Result<Prepared, Error> {
    // Files first: what is wrong in them needs no server.
    let trace = read_trace(scenario)?;
    let trace_us = trace.iter().map(|request| request.at_us).collect();
    let pace = Pace::new(&scenario.arrivals, scenario.seed, Limit::of(scenario), trace_us)?;
    let file = match &scenario.prompts {
        Prompts::File { path } => Some(PromptFile::read(path)?),
        _ => None,
    };
    let mut client = Client::new(scenario, target, api_key)?;
    let model = match &scenario.model {
        Some(model) => model.clone(),
        None => client.first_model().await?,
    };
    client.set_model(&model, scenario);
    let (tokens_per_word, prompt_basis) = match (&scenario.prompts, &file) {
        (Prompts::Synthetic { tokens, .. } | Prompts::Conversation { tokens, .. }, _) => {
            let typical = typical_tokens(*tokens, &trace);
            calibrate(scenario.seed, typical, async |text| client.count_tokens(text).await).await?
        }
        (Prompts::File { .. }, file) => {
            let prompts = file.as_ref().map_or(0, PromptFile::len);
            (TokensPerWord::default(), PromptBasis::File { prompts })
        }
    };
    let asking = Arc::new(Asker::new(scenario, Material { tokens_per_word, file, trace: trace.into() })?);
    Ok(Prepared { client, asking, pace, model, prompt_basis })
}

fn read_trace(scenario: &Scenario) -> Result<Vec<TraceRequest>, Error> {
    match &scenario.arrivals {
        Arrivals::Trace { path, .. } => trace::read(path),
        _ => Ok(Vec::new()),
    }
}

/// The length at which the target's tokenizer is asked: the middle one, since a token at the start of each prompt counts
/// for more in short ones.
fn typical_tokens(tokens: Length, trace: &[TraceRequest]) -> u64 {
    let mut lengths: Vec<u32> = trace.iter().filter_map(|request| request.prompt_tokens).collect();
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).map_or_else(|| tokens.median(), |tokens| f64::from(*tokens));
    median.round() as u64
}

//! What must be known before a run: the model's name, and how long prompts are in the target's tokens.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::arrivals::{Limit, Pace};
use crate::asking::{Asked, Asking};
use crate::client::Client;
use crate::error::Error;
use crate::prompts::{FilePrompt, PROMPT_FILE_BYTES_MAX, PromptBasis, Prompts, Synthetic, parse_prompts};
use crate::scenario::{self, Length, Scenario};
use crate::target::Target;

/// How often a sample prompt is made longer or shorter until the target counts the tokens that were asked for.
const LENGTH_CORRECTIONS_MAX: u32 = 3;
/// An index that no request has.
const SAMPLE_INDEX: u64 = u64::MAX;

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
    if matches!(scenario.arrivals, scenario::Arrivals::Trace { .. }) {
        return Err(Error::Config("traces cannot be read yet; give another kind of arrivals".into()));
    }
    let pace = Pace::new(&scenario.arrivals, scenario.seed, Limit::of(scenario), Vec::new())?;
    let mut client = Client::new(scenario, target, api_key)?;
    let model = match &scenario.model {
        Some(model) => model.clone(),
        None => client.first_model().await?,
    };
    client.set_model(&model, scenario);
    let (prompts, prompt_basis) = match &scenario.prompts {
        scenario::Prompts::File { path } => {
            let prompts = read_prompts(path).await?;
            let basis = PromptBasis::File { prompts: prompts.len() };
            (Prompts::File(prompts), basis)
        }
        scenario::Prompts::Synthetic { tokens, shared_prefix_tokens, .. } => {
            let tokens = u64::from(fixed("prompts.tokens", *tokens)?);
            let synthetic = Synthetic::new(scenario.seed, tokens, u64::from(*shared_prefix_tokens));
            let (synthetic, basis) = fit_to_tokens(synthetic, tokens, &client).await?;
            (Prompts::Synthetic(synthetic), basis)
        }
        scenario::Prompts::Conversation { .. } => {
            return Err(Error::Config("conversations cannot be made up yet; give a file of prompts".into()));
        }
    };
    let asking = Arc::new(Plain {
        prompts,
        max_tokens: fixed("answers.max_tokens", scenario.answers.max_tokens)?,
        streamed: scenario.answers.streamed,
    });
    Ok(Prepared { client, asking, pace, model, prompt_basis })
}

fn fixed(name: &str, length: Length) -> Result<u32, Error> {
    match length {
        Length::Fixed(tokens) => Ok(tokens),
        _ => Err(Error::Config(format!("{name} cannot be drawn yet; give one number"))),
    }
}

async fn read_prompts(path: &Path) -> Result<Vec<FilePrompt>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let bytes = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if bytes > PROMPT_FILE_BYTES_MAX {
        return Err(Error::Config(format!(
            "the file of prompts has {bytes} bytes; at most {PROMPT_FILE_BYTES_MAX} are allowed"
        )));
    }
    parse_prompts(path, &tokio::fs::read_to_string(path).await.map_err(failed)?)
}

/// Makes prompts whose tokens the target itself counts, or guesses at one token a word where it cannot.
async fn fit_to_tokens(
    mut synthetic: Synthetic,
    wanted: u64,
    client: &Client,
) -> Result<(Synthetic, PromptBasis), Error> {
    let Some(mut sample_tokens) = client.count_tokens(&synthetic.text(SAMPLE_INDEX)).await? else {
        return Ok((synthetic, PromptBasis::Estimated));
    };
    for _ in 0..LENGTH_CORRECTIONS_MAX {
        let scaled = synthetic.scaled(wanted, sample_tokens);
        if scaled == synthetic {
            break;
        }
        synthetic = scaled;
        sample_tokens = client.count_tokens(&synthetic.text(SAMPLE_INDEX)).await?.unwrap_or(sample_tokens);
    }
    Ok((synthetic, PromptBasis::Counted { sample_tokens }))
}

/// Prompts of one turn, all with the same cap unless they bring their own.
struct Plain {
    prompts: Prompts,
    max_tokens: u32,
    /// From 0 to 1.
    streamed: f64,
}

impl Asking for Plain {
    fn request(&self, index: u64, _turn: u32, _history: &[String]) -> Asked {
        let prompt = self.prompts.request(index);
        // Spread evenly: of any n requests in a row, n times the share is streamed, give or take one.
        let streamed_before = |index: u64| (index as f64 * self.streamed).floor();
        let nth = index % Prompts::WARMUP_INDEX_START;
        Asked {
            messages_json: serde_json::to_vec(&prompt.messages).map(Bytes::from).unwrap_or_default(),
            max_tokens: prompt.max_tokens.unwrap_or(self.max_tokens),
            stream: streamed_before(nth + 1) > streamed_before(nth),
            prompt_tokens: 0,
            more_turns: false,
        }
    }
}

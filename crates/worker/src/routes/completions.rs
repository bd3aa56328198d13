//! `POST /v1/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use engine::LoadedModel;
use http::HeaderMap;
use http_server::Failed;
use protocol::{ApiError, CompletionRequest, Generation, PrefixDigest, Prompt, prompt_digests};
use serde_json::Value;

use super::request_id;
use crate::app::App;
use crate::body::RequestBody;
use crate::format::respond::respond;
use crate::format::text::TextFormat;
use crate::job::{Job, check_bytes};

/// OpenAI's own default for this endpoint, which its users rely on.
const MAX_TOKENS_UNSET: usize = 16;

pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, Failed> {
    let arrived = Instant::now();
    let under_way = app.enter()?;
    let (request, generation) = body.parse::<CompletionRequest>(&app).await?;
    request.validate()?;
    generation.validate()?;
    app.check_model(&request.model)?;
    let logprobs = logprobs_of(&generation)?;
    let echo = request.echo.unwrap_or(false);
    if echo && logprobs.is_some() {
        let message = "`echo` together with `logprobs` is not supported; ask for `prompt_logprobs` instead";
        return Err(ApiError::invalid("echo", message).into());
    }
    let n = generation.n.unwrap_or(1);
    let blamed = if n > 1 { "n" } else { "prompt" };
    let places = app.reserve(request.prompt.len() * n as usize, blamed)?;

    let salt = generation.cache_salt.clone().unwrap_or_default();
    let model = Arc::clone(&app.model);
    let work = {
        let (salt, bytes_max) = (salt.clone(), app.prompt_bytes_max);
        move || encode_prompts(&model, request, echo, &salt, bytes_max)
    };
    let Encoded { ids: prompts, echo, digests } = app.compute.run(work).await?;
    let job = Job {
        request_id: request_id(&headers),
        prompts,
        n,
        generation,
        logprobs,
        salt,
        max_tokens_unset: MAX_TOKENS_UNSET,
    };
    let answers = app.submit(&job, "prompt", places, arrived)?;
    app.touch_prefixes(&digests);

    let (envelope, delivery) = job.framed("cmpl", &app.model);
    let format = TextFormat { envelope, logprobs: logprobs.is_some(), n, echo };
    Ok(respond(format, answers, delivery, &app.compute, under_way).await?)
}

/// What is made of a request's prompts before the engine sees them.
struct Encoded {
    ids: Vec<Vec<u32>>,
    /// Their texts, if the answers are to begin with them.
    echo: Option<Vec<String>>,
    digests: Vec<PrefixDigest>,
}

fn encode_prompts(
    model: &LoadedModel,
    request: CompletionRequest,
    echo: bool,
    salt: &str,
    bytes_max: usize,
) -> Result<Encoded, ApiError> {
    let digests = prompt_digests(salt, &request.prompt);
    let add_special = request.add_special_tokens.unwrap_or(true);
    let tokenizer = model.tokenizer();
    let encode = |text: &String| {
        check_bytes(text, bytes_max, "prompt")?;
        tokenizer
            .encode(text, add_special, true)
            .map_err(|error| ApiError::invalid("prompt", error.to_string()))
    };
    let ids = match &request.prompt {
        Prompt::Text(text) => vec![encode(text)?],
        Prompt::Texts(texts) => texts.iter().map(encode).collect::<Result<_, _>>()?,
        Prompt::Ids(ids) => vec![ids.clone()],
        Prompt::IdLists(lists) => lists.clone(),
    };
    let echo = echo.then(|| match request.prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Texts(texts) => texts,
        Prompt::Ids(_) | Prompt::IdLists(_) => ids.iter().map(|ids| tokenizer.decode(ids, false)).collect(),
    });
    Ok(Encoded { ids, echo, digests })
}

/// For completions `logprobs` is a number of alternatives.
fn logprobs_of(generation: &Generation) -> Result<Option<u8>, ApiError> {
    let max = Generation::LOGPROBS_MAX;
    match &generation.logprobs {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) if count <= u64::from(max) => Ok(Some(count as u8)),
            _ => Err(ApiError::invalid("logprobs", format!("`logprobs` must be a number from 0 to {max}"))),
        },
    }
}

//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use engine::LoadedModel;
use engine::chat_template::TemplateError;
use http::HeaderMap;
use http_server::Failed;
use protocol::{ApiError, ChatRequest, ErrorCode, Generation, chat_digests};
use serde_json::Value;

use super::request_id;
use crate::app::App;
use crate::body::RequestBody;
use crate::format::chat::ChatFormat;
use crate::format::respond::respond;
use crate::job::{Job, check_bytes};

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, Failed> {
    let arrived = Instant::now();
    let under_way = app.enter()?;
    let (request, generation) = body.parse::<ChatRequest>(&app).await?;
    request.validate()?;
    generation.validate()?;
    app.check_model(&request.model)?;
    let logprobs = logprobs_of(&generation)?;
    let n = generation.n.unwrap_or(1);
    let places = app.reserve(n as usize, "n")?;

    let salt = generation.cache_salt.clone().unwrap_or_default();
    let model = Arc::clone(&app.model);
    let work = {
        let (salt, bytes_max) = (salt.clone(), app.prompt_bytes_max);
        move || Ok((encode_chat(&model, &request, bytes_max)?, chat_digests(&salt, &request.messages)))
    };
    let (prompt, digests) = app.compute.run(work).await?;
    let job = Job {
        request_id: request_id(&headers),
        prompts: vec![prompt],
        n,
        generation,
        logprobs,
        salt,
        max_tokens_unset: usize::MAX,
    };
    let answers = app.submit(&job, "messages", places, arrived)?;
    app.touch_prefixes(&digests);

    let (envelope, delivery) = job.framed("chatcmpl", &app.model);
    let format = ChatFormat { envelope, logprobs: logprobs.is_some() };
    Ok(respond(format, answers, delivery, &app.compute, under_way).await?)
}

/// Messages through the model's template to ids. A text of more than `bytes_max` is refused.
pub(super) fn encode_chat(
    model: &LoadedModel,
    request: &ChatRequest,
    bytes_max: usize,
) -> Result<Vec<u32>, ApiError> {
    let kwargs = request.chat_template_kwargs.clone().unwrap_or_default();
    let add_generation_prompt = request.add_generation_prompt.unwrap_or(true);
    let rendered = model.chat_template().render(&request.messages, add_generation_prompt, &kwargs);
    let text = rendered.map_err(|error| refused_by_template(&error, kwargs.is_empty()))?;
    check_bytes(&text, bytes_max, "messages")?;
    model
        .tokenizer()
        .encode(&text, false, true)
        .map_err(|error| ApiError::invalid("messages", error.to_string()))
}

/// Blames what the template was given, wherever something else would do.
fn refused_by_template(error: &TemplateError, only_messages: bool) -> ApiError {
    if !error.is_client_fault() {
        tracing::error!(%error, "the model's chat template failed");
        return ApiError::new(ErrorCode::Internal, "the model's chat template failed on this conversation");
    }
    tracing::info!(%error, "a conversation was refused by the model's chat template");
    let is_about_messages = only_messages || matches!(error, TemplateError::Raised(_));
    let param = if is_about_messages { "messages" } else { "chat_template_kwargs" };
    ApiError::invalid(param, error.to_string())
}

/// Chat's `logprobs` is a switch, and `top_logprobs` needs it.
fn logprobs_of(generation: &Generation) -> Result<Option<u8>, ApiError> {
    let on = match &generation.logprobs {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => *on,
        Some(_) => return Err(ApiError::invalid("logprobs", "`logprobs` must be true or false for chat")),
    };
    match generation.top_logprobs {
        Some(_) if !on => Err(ApiError::invalid("top_logprobs", "`top_logprobs` needs `logprobs: true`")),
        top => Ok(on.then(|| top.unwrap_or(0) as u8)),
    }
}

//! Refusals of calls, in the shape that the provider's own errors have.

mod budget;

use serde_json::{Value, json};
use tollmesh_usage::Api;
use tollmesh_wire::plugin::TagSources;

pub(super) use budget::{BUDGET_HEADER, EVENT_HEADER, notice, over_budget};

use super::Denial;
use crate::tags::remedy;

/// What the error is called, in the access log and where the provider's shape has a code.
const MISSING_TAG: &str = "tollmesh_missing_tag";

/// How the errors of an API family look, so that its official clients read them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// <https://platform.openai.com/docs/guides/error-codes>; many hosts follow it.
    OpenAi,
    /// <https://platform.claude.com/docs/en/api/errors>
    Anthropic,
    /// `google.rpc.Status`, <https://cloud.google.com/apis/design/errors>
    Google,
    /// <https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html>; the SDKs take
    /// the kind from a header.
    Aws,
    /// <https://docs.cohere.com/reference/errors>
    Cohere,
    /// <https://docs.ollama.com/api/errors>
    Ollama,
    /// <https://cloud.ibm.com/apidocs/watsonx-ai>
    Watsonx,
    /// <https://www.alibabacloud.com/help/en/model-studio/error-code>
    DashScope,
}

/// The refusal of a call that lacks required tags.
pub(super) fn untagged(sources: &TagSources, api: Api, missing: &[String]) -> Denial {
    let message = message(sources, missing);
    let shape = Shape::of(api);
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-should-retry", "false".to_owned()),
    ];
    if shape == Shape::Aws {
        headers.push(("x-amzn-errortype", "ValidationException".to_owned()));
    }
    Denial {
        status: 400,
        details: MISSING_TAG,
        headers,
        body: shape.bad_request(&message).to_string(),
    }
}

fn message(sources: &TagSources, missing: &[String]) -> String {
    let wants = missing.iter().map(|tag| match remedy(sources, tag) {
        Some(remedy) => format!("{tag:?} (set {remedy})"),
        None => format!("{tag:?} (only the mesh can set it)"),
    });
    let wants = wants.collect::<Vec<_>>().join(" and ");
    let noun = if missing.len() == 1 { "tag" } else { "tags" };
    format!("calls to LLM providers need the {noun} {wants} in this mesh")
}

impl Shape {
    /// The first part of an API's name is its family's.
    fn of(api: Api) -> Shape {
        let family = api.name().split('.').next().unwrap_or_default();
        match family {
            "anthropic" => Shape::Anthropic,
            "gemini" => Shape::Google,
            "bedrock" => Shape::Aws,
            "cohere" => Shape::Cohere,
            "ollama" => Shape::Ollama,
            "watsonx" => Shape::Watsonx,
            "dashscope" => Shape::DashScope,
            _ => Shape::OpenAi,
        }
    }

    fn bad_request(self, message: &str) -> Value {
        match self {
            Shape::OpenAi => json!({ "error": {
                "message": message, "type": "invalid_request_error", "param": null,
                "code": MISSING_TAG,
            }}),
            Shape::Anthropic => json!({ "type": "error", "error": {
                "type": "invalid_request_error", "message": message,
            }}),
            Shape::Google => json!({ "error": {
                "code": 400, "message": message, "status": "INVALID_ARGUMENT",
            }}),
            Shape::Aws | Shape::Cohere => json!({ "message": message }),
            Shape::Ollama => json!({ "error": message }),
            Shape::Watsonx => json!({ "status_code": 400, "errors": [
                { "code": "invalid_request_entity", "message": message },
            ]}),
            Shape::DashScope => json!({ "code": "InvalidParameter", "message": message }),
        }
    }

    /// `is_spent`: until the window ends; else asking again soon may help.
    fn rate_limited(self, message: &str, is_spent: bool) -> Value {
        match self {
            Shape::OpenAi => {
                let kind = match is_spent {
                    true => "insufficient_quota",
                    false => "rate_limit_exceeded",
                };
                json!({ "error": {
                    "message": message, "type": kind, "param": null, "code": kind,
                }})
            }
            Shape::Anthropic => json!({ "type": "error", "error": {
                "type": "rate_limit_error", "message": message,
            }}),
            Shape::Google => json!({ "error": {
                "code": 429, "message": message, "status": "RESOURCE_EXHAUSTED",
            }}),
            Shape::Aws | Shape::Cohere => json!({ "message": message }),
            Shape::Ollama => json!({ "error": message }),
            Shape::Watsonx => json!({ "status_code": 429, "errors": [
                { "code": "rate_limit_reached_requests", "message": message },
            ]}),
            Shape::DashScope => {
                let code = match is_spent {
                    true => "Throttling.AllocationQuota",
                    false => "Throttling.RateQuota",
                };
                json!({ "code": code, "message": message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_stands_where_the_familys_clients_look() {
        let missing = ["team".to_owned()];
        for (api, pointer) in [
            (Api::OpenAiChat, "/error/message"),
            (Api::OpenAiResponses, "/error/message"),
            (Api::AnthropicMessages, "/error/message"),
            (Api::GeminiGenerate, "/error/message"),
            (Api::BedrockConverse, "/message"),
            (Api::CohereChat, "/message"),
            (Api::OllamaChat, "/error"),
            (Api::WatsonxGenerate, "/errors/0/message"),
            (Api::DashScopeGenerate, "/message"),
        ] {
            let denial = untagged(&TagSources::default(), api, &missing);
            let body: Value = serde_json::from_str(&denial.body).expect("is JSON");
            let message = body.pointer(pointer).and_then(Value::as_str);
            assert_eq!(
                message,
                Some(
                    "calls to LLM providers need the tag \"team\" (set the request header \
                     \"x-llm-tag-team\") in this mesh"
                ),
                "{}",
                api.name()
            );
        }
    }

    #[test]
    fn every_missing_tag_is_named() {
        let sources = TagSources {
            header_prefix: None,
            headers: [("team".to_owned(), "x-team".to_owned())].into(),
            ..TagSources::default()
        };
        let missing = ["team".to_owned(), "tier".to_owned()];
        assert_eq!(
            message(&sources, &missing),
            "calls to LLM providers need the tags \"team\" (set the request header \"x-team\") \
             and \"tier\" (only the mesh can set it) in this mesh"
        );
    }
}

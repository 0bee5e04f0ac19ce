//! Which model served a call whose answer has no place to say so.

use crate::detect::{Api, Target};
use crate::request::RequestFacts;
use crate::scan::Scan;

impl Scan {
    /// Takes the model that was asked for as the one that served, where the API's answers never
    /// name one and the call succeeded. Elsewhere an answer that names no model leaves it open:
    /// what was asked for is an alias there, and the answer is what would have resolved it.
    pub fn settle_model(&mut self, target: &Target, request: &RequestFacts) {
        if self.model.is_none() && self.billable && !self.is_error && is_silent(target.api) {
            let asked = request.model.as_ref().or(target.path_model.as_ref());
            self.model = asked.cloned();
        }
    }
}

/// Whether the API's answers have no field for the model, or none in all their versions.
const fn is_silent(api: Api) -> bool {
    match api {
        // The model is in the path; the answer has usage, output and metrics
        // (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html).
        Api::BedrockConverse
        | Api::BedrockConverseStream
        | Api::BedrockInvoke
        | Api::BedrockInvokeStream => true,
        // The path names the model; `modelVersion` came later and is optional, and embeddings have
        // none (ai.google.dev/api/generate-content, ai.google.dev/api/embeddings).
        Api::GeminiGenerate | Api::GeminiStreamGenerate | Api::GeminiEmbed | Api::GeminiPredict => {
            true
        }
        // docs.cohere.com/reference/chat, /embed, /rerank: an id, the result, and `meta`.
        Api::CohereChat | Api::CohereV1Chat | Api::CohereEmbed | Api::CohereRerank => true,
        // Hosts that follow Cohere's shape leave it out, those that follow Jina's have it.
        Api::Rerank => true,
        // alibabacloud.com/help/model-studio/qwen-api-via-dashscope: `output`, `usage`, an id.
        Api::DashScopeGenerate => true,
        // platform.openai.com/docs/api-reference/images: `created`, `data`, `usage`.
        Api::OpenAiImages => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(api: Api, scan: Scan) -> Option<String> {
        let request = RequestFacts {
            model: Some("asked".to_owned()),
            ..RequestFacts::default()
        };
        let mut scan = scan;
        scan.settle_model(&Target::new(api, "p"), &request);
        scan.model
    }

    fn charged() -> Scan {
        Scan {
            billable: true,
            ..Scan::default()
        }
    }

    #[test]
    fn what_was_asked_for_served_where_answers_never_say() {
        for api in [Api::CohereChat, Api::OpenAiImages, Api::BedrockInvoke] {
            assert_eq!(settled(api, charged()).as_deref(), Some("asked"), "{api:?}");
        }
        for api in [
            Api::OpenAiResponsesCompact,
            Api::OpenAiCompletions,
            Api::AnthropicCountTokens,
            Api::OpenAiAudio,
        ] {
            assert_eq!(settled(api, charged()), None, "{api:?}");
        }
    }

    #[test]
    fn errors_and_free_answers_were_served_by_none() {
        let failed = Scan {
            is_error: true,
            ..charged()
        };
        assert_eq!(settled(Api::CohereChat, failed), None);
        assert_eq!(settled(Api::CohereChat, Scan::default()), None);
    }

    #[test]
    fn an_answer_that_names_its_model_is_believed() {
        let named = Scan {
            model: Some("served".to_owned()),
            ..charged()
        };
        let model = settled(Api::CohereChat, named);
        assert_eq!(model.as_deref(), Some("served"));
    }

    #[test]
    fn a_path_names_the_model_as_well_as_a_body() {
        let mut target = Target::new(Api::BedrockConverse, "aws-bedrock");
        target.path_model = Some("amazon.nova-lite-v1:0".to_owned());
        let mut scan = charged();
        scan.settle_model(&target, &RequestFacts::default());
        assert_eq!(scan.model, target.path_model);
    }
}

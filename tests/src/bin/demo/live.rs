//! The demo with the real providers: nothing is sent, everything that others send is metered.

use tollmesh_tests::Mesh;
use tollmesh_tests::artifacts::Artifacts;

use crate::story::{print_report, wait_for_interrupt};

/// Stands between whoever calls and the real providers until Ctrl-C.
pub fn stand_by(artifacts: &Artifacts) -> anyhow::Result<()> {
    let mesh = Mesh::built().real_providers().start_with(artifacts)?;
    let envoy = mesh.envoy().listener();
    println!("Envoy listens on http://{envoy} and goes on to the real providers over TLS.");
    println!(
        "Call one with a key of your own; the key passes through and is never read or kept:\n"
    );
    println!(
        "  curl http://{envoy}/v1/chat/completions -H 'host: api.openai.com' \\\n    \
         -H \"authorization: Bearer $OPENAI_API_KEY\" -H 'content-type: application/json' \\\n    \
         -H 'x-llm-tag-team: me' \\\n    \
         -d '{{\"model\":\"gpt-4o-mini\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}'\n"
    );
    println!(
        "  curl http://{envoy}/v1/messages -H 'host: api.anthropic.com' \\\n    \
         -H \"x-api-key: $ANTHROPIC_API_KEY\" -H 'anthropic-version: 2023-06-01' \\\n    \
         -H 'content-type: application/json' -H 'x-llm-tag-team: me' \\\n    \
         -d '{{\"model\":\"claude-haiku-4-5\",\"max_tokens\":64,\
         \"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}'\n"
    );
    println!(
        "Then look at http://{}/metrics. Ctrl-C shows the bill and ends.",
        mesh.operator()
    );
    wait_for_interrupt(&mesh)?;
    print_report(&mesh)
}

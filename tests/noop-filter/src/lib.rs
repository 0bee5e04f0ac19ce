//! A filter that does nothing: what Envoy itself spends on handing each callback to wasm.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Idle));
}}

/// Root and stream contexts alike: every callback has its default, which is to go on.
struct Idle;

impl Context for Idle {}

impl HttpContext for Idle {}

impl RootContext for Idle {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Idle))
    }
}

//! What the items of a response amount to: calls of functions, and searches that are charged.

/// What the items of one list amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Items {
    pub(super) calls: u32,
    pub(super) web_searches: u64,
    pub(super) file_searches: u64,
}

impl Items {
    pub(super) fn add(&mut self, kind: Option<&str>, action: Option<&str>) {
        match kind {
            Some("function_call" | "custom_tool_call") => self.calls += 1,
            // https://platform.openai.com/docs/guides/tools-web-search: only the action `search`
            // is charged; older answers name no action.
            Some("web_search_call") if matches!(action, None | Some("search")) => {
                self.web_searches += 1;
            }
            // https://platform.openai.com/docs/pricing: each call of the tool is charged.
            Some("file_search_call") => self.file_searches += 1,
            _ => {}
        }
    }
}

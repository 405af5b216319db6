//! The methods that a client can send (facts of the MCP specification, revisions 2024-11-05 to 2026-07-28).

/// A known client-to-server method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the method of that name")]
pub enum Method {
    Initialize,
    Ping,
    ServerDiscover,
    ToolsList,
    ToolsCall,
    PromptsList,
    PromptsGet,
    ResourcesList,
    ResourcesTemplatesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    SubscriptionsListen,
    CompletionComplete,
    LoggingSetLevel,
    TasksGet,
    TasksResult,
    TasksUpdate,
    TasksCancel,
    TasksList,
    /// `notifications/initialized`
    NotificationsInitialized,
    /// `notifications/cancelled`
    NotificationsCancelled,
    /// `notifications/progress`
    NotificationsProgress,
    /// `notifications/roots/list_changed`
    NotificationsRootsListChanged,
}

impl Method {
    /// The method of this exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        let _ = name;
        todo!()
    }
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        todo!()
    }
}

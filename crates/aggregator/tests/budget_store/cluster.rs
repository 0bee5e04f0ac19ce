//! Three servers as one cluster.

use crate::redis_server::{Server, free_address};

impl Server {
    /// Three servers that share the slots, with further settings as on their command lines.
    pub fn start_cluster(more: &[&str]) -> Option<Vec<Server>> {
        let mut servers = Vec::new();
        for _ in 0..3 {
            let bus = free_address().port().to_string();
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let own = own.into_iter().chain(["--cluster-node-timeout", "3000"]);
            let settings: Vec<&str> = own.chain(more.iter().copied()).collect();
            servers.push((Server::start(&settings)?, bus));
        }
        let slots = ["0 5460", "5461 10922", "10923 16383"];
        for ((server, _), slots) in servers.iter().zip(slots) {
            server.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
            for (other, bus) in &servers {
                let port = other.address.port();
                server.ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
            }
        }
        for (server, _) in &servers {
            server.until("CLUSTER INFO", |answer| {
                answer.contains("cluster_state:ok") && answer.contains("cluster_known_nodes:3")
            });
        }
        Some(servers.into_iter().map(|(server, _)| server).collect())
    }

    /// Sends a command, and answers what comes back at once.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }
}

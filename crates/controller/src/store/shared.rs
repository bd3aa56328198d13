//! The log in Redis, for controllers on several machines.
//!
//! A key that expires says who decides, a counter that only grows is the epoch, and records go into a list. Every write
//! is a script that looks at the epoch first, so that a controller which was stopped for a minute and goes on finds that
//! it no longer may.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, Script};

use super::{Taken, read};
use crate::{ControllerError, Record};

const LEASE: &str = "tenk:controller:lease";
const EPOCH: &str = "tenk:controller:epoch";
const LOG: &str = "tenk:controller:log";
const CHECKPOINT: &str = "tenk:controller:evidence";

/// How long a controller may be silent before another one takes over, in milliseconds.
const LEASE_MS: u64 = 5_000;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Takes the lease if nobody holds it, and counts the epoch up.
const TAKE: &str = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end \
                    local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(ARGV[2])) + 1 \
                    redis.call('SET', KEYS[2], epoch) \
                    redis.call('SET', KEYS[1], epoch, 'PX', ARGV[1]) \
                    return epoch";
/// Renews the lease of the epoch that holds it, or takes it again if it expired and nobody else has it.
const KEEP: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end \
                    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) \
                    return 1";
/// Writes a record of the epoch at hand.
const APPEND: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end \
                      redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) \
                      redis.call('RPUSH', KEYS[3], ARGV[3]) \
                      return 1";
/// Notes what the epoch at hand has seen.
const NOTE: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end \
                    redis.call('SET', KEYS[4], ARGV[3]) \
                    return 1";

/// Redis as a store.
#[derive(Debug)]
pub(crate) struct RedisStore {
    client: Client,
    connection: Option<MultiplexedConnection>,
    epoch: u64,
}

impl RedisStore {
    pub(crate) fn new(url: &str) -> Result<Self, ControllerError> {
        Ok(Self { client: Client::open(url)?, connection: None, epoch: 0 })
    }

    async fn connection(&mut self) -> Result<MultiplexedConnection, ControllerError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Runs a script; after an error the next one gets a new connection.
    async fn run(&mut self, script: &str, arguments: &[String]) -> Result<u64, ControllerError> {
        let mut connection = self.connection().await?;
        let script = Script::new(script);
        let mut call = script.prepare_invoke();
        [LEASE, EPOCH, LOG, CHECKPOINT].into_iter().for_each(|key| {
            call.key(key);
        });
        call.arg(LEASE_MS.to_string());
        arguments.iter().for_each(|argument| {
            call.arg(argument);
        });
        let result = call.invoke_async(&mut connection).await;
        self.or_forget_connection(result)
    }

    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ControllerError> {
        let mut connection = self.connection().await?;
        let result = command.query_async(&mut connection).await;
        self.or_forget_connection(result)
    }

    fn or_forget_connection<T>(&mut self, result: RedisResult<T>) -> Result<T, ControllerError> {
        if result.is_err() {
            self.connection = None;
        }
        Ok(result?)
    }

    /// Runs a script as the epoch at hand.
    async fn run_in_epoch(&mut self, script: &str, more: Option<String>) -> Result<(), ControllerError> {
        let arguments: Vec<String> = [self.epoch.to_string()].into_iter().chain(more).collect();
        match self.run(script, &arguments).await? {
            1 => Ok(()),
            _ => Err(ControllerError::Fenced),
        }
    }

    pub(crate) async fn take(&mut self, above: u64) -> Result<Option<Taken>, ControllerError> {
        let epoch = self.run(TAKE, &[above.to_string()]).await?;
        if epoch == 0 {
            return Ok(None);
        }
        self.epoch = epoch;
        let records = self.records().await?;
        let checkpoint = self.query(redis::cmd("GET").arg(CHECKPOINT)).await?;
        Ok(Some(Taken { epoch, records, checkpoint }))
    }

    /// The lease runs out.
    pub(crate) fn release(&mut self) {
        self.connection = None;
        self.epoch = 0;
    }

    pub(crate) async fn keep(&mut self) -> Result<(), ControllerError> {
        match self.run_in_epoch(KEEP, None).await {
            // A connection may break; twice in a row is another matter.
            Err(ControllerError::Redis(_)) => self.run_in_epoch(KEEP, None).await,
            kept => kept,
        }
    }

    pub(crate) async fn append(&mut self, record: &Record) -> Result<(), ControllerError> {
        self.run_in_epoch(APPEND, Some(serde_json::to_string(record)?)).await
    }

    pub(crate) async fn checkpoint(&mut self, text: String) -> Result<(), ControllerError> {
        self.run_in_epoch(NOTE, Some(text)).await
    }

    pub(crate) async fn records(&mut self) -> Result<Vec<Record>, ControllerError> {
        let lines: Vec<String> = self.query(redis::cmd("LRANGE").arg(LOG).arg(0).arg(-1)).await?;
        read(LOG, lines.iter().map(String::as_str))
    }
}

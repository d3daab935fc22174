//! The simple protocol: one string of statements, text results.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connection::{Connection, End, watched},
    reply::{self, Plain},
};
use crate::session::{SqlError, statement};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Runs the statements of `sql` until one fails.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<(), End> {
        // Portals do not outlive a simple query.
        self.portals.clear_unnamed();
        let statements = match statement::parse(sql) {
            Ok(statements) => statements,
            Err(error) => return self.failed(&error),
        };
        if statements.is_empty() {
            reply::plain(&mut self.socket.output, Plain::EmptyQuery);
            return Ok(());
        }
        if statements.len() > 1 {
            self.session.begin_implicit();
        }
        for statement in &statements {
            if let Err(error) = self.one(statement).await? {
                self.failed(&error)?;
                break;
            }
            self.session.end();
        }
        self.session.end_implicit();
        Ok(())
    }

    async fn one(&mut self, statement: &statement::Statement) -> Result<Result<(), SqlError>, End> {
        match watched(&mut self.socket, self.session.run(statement)).await? {
            Ok(response) => self.respond(response).await,
            Err(error) => Ok(Err(error.shifted(statement.offset))),
        }
    }
}

//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, without channel binding.
//!
//! What is stored of a password is a [`Verifier`]: it tells whether a client knows the password and lets nobody log in who only sees it. A user who
//! does not exist goes through the same steps, with a salt made from the name, so that names cannot be found out.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{
    digest, hmac, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};

use crate::session::error::{Result, SqlError, state};

pub const MECHANISM: &str = "SCRAM-SHA-256";
const ITERATIONS: u32 = 4096;
const ITERATIONS_MAX: u32 = 1_000_000;

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Verifier {
    /// With a random salt.
    pub fn from_password(password: &str) -> Result<Self> {
        let mut salt = vec![0; 16];
        random(&mut salt)?;
        Ok(Self::derive(password, salt, ITERATIONS))
    }

    fn derive(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        // PostgreSQL takes a password that SASLprep refuses as it is.
        let prepared = stringprep::saslprep(password).map_or_else(|_| password.to_owned(), |text| text.into_owned());
        let mut salted = [0; 32];
        let rounds = std::num::NonZeroU32::new(iterations).unwrap_or(std::num::NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, prepared.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        Self { iterations, salt, stored_key: hash(&client_key), server_key: sign(&salted, b"Server Key") }
    }

    /// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`, as in pg_authid.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            SqlError::new(state::INVALID_PASSWORD, "a SCRAM verifier is malformed").with_hint(
                "it reads SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, the last three in base64",
            )
        };
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or_else(wrong)?;
        let (parameters, keys) = rest.split_once('$').ok_or_else(wrong)?;
        let (iterations, salt) = parameters.split_once(':').ok_or_else(wrong)?;
        let (stored, server) = keys.split_once(':').ok_or_else(wrong)?;
        let key = |text: &str| -> Result<[u8; 32]> {
            BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)
        };
        let iterations: u32 = iterations.parse().map_err(|_| wrong())?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(wrong());
        }
        Ok(Self {
            iterations,
            salt: BASE64.decode(salt).map_err(|_| wrong())?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// The form that [`Verifier::parse`] reads.
    pub fn to_text(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }

    /// For a name that is no user's: nobody has its password.
    fn nobody(user: &str, secret: &[u8]) -> Result<Self> {
        let salt = sign(secret, user.as_bytes())[..16].to_vec();
        let (mut stored_key, mut server_key) = ([0; 32], [0; 32]);
        random(&mut stored_key)?;
        random(&mut server_key)?;
        Ok(Self { iterations: ITERATIONS, salt, stored_key, server_key })
    }
}

/// One client's exchange, after its first message.
pub struct Exchange {
    verifier: Verifier,
    is_user: bool,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

fn malformed(detail: &str) -> SqlError {
    SqlError::new(state::PROTOCOL_VIOLATION, "malformed SCRAM message").with_detail(detail)
}

impl Exchange {
    /// Takes `client-first-message`; gives the exchange and what to answer. `secret` is the server's, the same for its whole life.
    pub fn begin(user: &str, verifier: Option<&Verifier>, client_first: &str, secret: &[u8]) -> Result<(Self, String)> {
        let mut nonce = [0; 18];
        random(&mut nonce)?;
        Self::begin_with(user, verifier, client_first, secret, &BASE64.encode(nonce))
    }

    fn begin_with(
        user: &str,
        verifier: Option<&Verifier>,
        client_first: &str,
        secret: &[u8],
        server_nonce: &str,
    ) -> Result<(Self, String)> {
        let mut parts = client_first.splitn(3, ',');
        let (flag, authorization, bare) = match (parts.next(), parts.next(), parts.next()) {
            (Some(flag), Some(authorization), Some(bare)) => (flag, authorization, bare),
            _ => return Err(malformed("the first message has no GS2 header")),
        };
        if !matches!(flag, "n" | "y") {
            return Err(malformed("channel binding was not offered"));
        }
        if !authorization.is_empty() {
            return Err(SqlError::unsupported("SCRAM authorization identities are not supported"));
        }
        let client_nonce = bare
            .split(',')
            .find_map(|attribute| attribute.strip_prefix("r="))
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| malformed("the first message has no nonce"))?;
        let is_user = verifier.is_some();
        let verifier = match verifier {
            Some(verifier) => verifier.clone(),
            None => Verifier::nobody(user, secret)?,
        };
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let exchange = Self {
            verifier,
            is_user,
            gs2_header: format!("{flag},,"),
            client_first_bare: bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
        };
        Ok((exchange, server_first))
    }

    /// Takes `client-final-message`; gives what to answer a client that knows the password, 28P01 for others.
    pub fn finish(self, user: &str, client_final: &str) -> Result<String> {
        let (without_proof, proof) =
            client_final.rsplit_once(",p=").ok_or_else(|| malformed("the final message has no proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|attribute| attribute.strip_prefix("c="));
        if binding.and_then(|binding| BASE64.decode(binding).ok()).as_deref() != Some(self.gs2_header.as_bytes()) {
            return Err(malformed("the final message does not repeat the GS2 header"));
        }
        if attributes.next().and_then(|attribute| attribute.strip_prefix("r=")) != Some(self.nonce.as_str()) {
            return Err(malformed("the final message does not repeat the nonce"));
        }
        let proof: [u8; 32] = BASE64
            .decode(proof)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| malformed("the proof is no base64 of 32 bytes"))?;
        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = sign(&self.verifier.stored_key, signed.as_bytes());
        let mut client_key = [0; 32];
        for (byte, (a, b)) in client_key.iter_mut().zip(proof.iter().zip(signature)) {
            *byte = a ^ b;
        }
        let same = equal(&hash(&client_key), &self.verifier.stored_key);
        if !(same && self.is_user) {
            return Err(SqlError::new(
                state::INVALID_PASSWORD,
                format!("password authentication failed for user \"{user}\""),
            ));
        }
        Ok(format!("v={}", BASE64.encode(sign(&self.verifier.server_key, signed.as_bytes()))))
    }
}

/// Bytes that nobody can guess.
pub fn random(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| SqlError::internal("the system's source of random numbers failed"))
}

fn sign(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

fn hash(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// Takes the same time wherever the two differ.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn answers_the_example_of_the_rfc() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", salt, 4096);
        let (exchange, server_first) = Exchange::begin_with(
            "user",
            Some(&verifier),
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            b"",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
        assert_eq!(
            server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let client_final = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.finish("user", client_final).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn verifiers_read_back_and_refuse_rubbish() {
        let verifier = Verifier::from_password("pässword").unwrap();
        assert_eq!(Verifier::parse(&verifier.to_text()).unwrap(), verifier);
        for wrong in
            ["", "pencil", "SCRAM-SHA-256$0:YQ==$YQ==:YQ==", "SCRAM-SHA-256$4096:!$:", "SCRAM-SHA-256$x:YQ==$a:b"]
        {
            assert!(Verifier::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_gets_in() {
        let first = "n,,n=,r=abc";
        let (exchange, server_first) = Exchange::begin_with("ghost", None, first, b"secret", "xyz").unwrap();
        let (_, again) = Exchange::begin_with("ghost", None, first, b"secret", "xyz").unwrap();
        assert_eq!(server_first, again, "a name that is no user's must not be told by its salt");
        let proof = BASE64.encode([0; 32]);
        let error = exchange.finish("ghost", &format!("c=biws,r=abcxyz,p={proof}")).unwrap_err();
        assert_eq!(error.state, state::INVALID_PASSWORD);
    }
}

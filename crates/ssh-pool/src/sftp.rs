//! Files over the pool: SFTP on a pooled channel.

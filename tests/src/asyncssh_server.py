"""An SFTP server of asyncssh: ADDRESS PORT HOST_KEY AUTHORIZED_KEYS UID GID."""

import asyncio
import os
import sys

import asyncssh


async def main(address, port, host_key, authorized_keys, uid, gid):
    server = await asyncssh.listen(
        address,
        int(port),
        # Read now: it is asked for again at each login, which is not as root any more.
        server_host_keys=[asyncssh.read_private_key(host_key)],
        authorized_client_keys=asyncssh.read_authorized_keys(authorized_keys),
        sftp_factory=asyncssh.SFTPServer,
    )
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    print("listening", file=sys.stderr, flush=True)
    await server.wait_closed()


asyncio.run(main(*sys.argv[1:]))

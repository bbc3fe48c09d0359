"""A server of one page that keeps connections, and when it is told to end lets go of each after its next answer."""

import asyncio
import os
import signal

HEAD = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n"
page = os.environ.get("RELEASE", "") + "\n"
ending = asyncio.Event()


async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            last = ending.is_set()
            writer.write((HEAD.format(len(page), "close" if last else "keep-alive") + page).encode())
            await writer.drain()
            if last:
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    server = await asyncio.start_server(serve, "0.0.0.0", 80)
    open("/listening", "w").close()
    await ending.wait()
    server.close()
    # Each client asks at least this often.
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=2)


asyncio.run(main())

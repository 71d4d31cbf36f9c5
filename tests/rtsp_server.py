"""An RTSP camera on loopback, for the system's Python, which has GStreamer: PORT as its argument."""

import sys

import gi  # type: ignore[import-not-found]  # it is the system's Python that has it

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402  # versions first

Gst.init(None)
server = GstRtspServer.RTSPServer(service=sys.argv[1], address="127.0.0.1")
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 "
    "! jpegenc ! rtpjpegpay name=pay0 )"
)
server.get_mount_points().add_factory("/board", factory)
server.attach(None)
print("ready", flush=True)  # noqa: T201  # what the test waits for
GLib.MainLoop().run()

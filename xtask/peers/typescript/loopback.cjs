// Preloaded (`node -r`): a server that would listen on every address listens on loopback.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (/^\d+$/.test(String(port)) && typeof rest[0] !== "string") rest.unshift("127.0.0.1");
  return listen.call(this, port, ...rest);
};

// A service worker answers below the folder that it lies in: this one takes in the package's.
importScripts("inpage/sw.js");
